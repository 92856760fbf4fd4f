"""Which cluster a node belongs to: its directory's, the one it founds, or the one it is told of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.server import joining
from raftkv.server.joining import begin, read_cluster
from raftkv.storage.charter import write_charter
from raftkv.storage.files import OsFiles

CLUSTER = "n1=127.0.0.1:9001,n2=127.0.0.1:9002"
CLUSTER_ID = "0123456789abcdef"
ANSWER = {
    "cluster_id": CLUSTER_ID,
    "members": [{"node": "n1", "peer_address": "a:1"}, {"node": "n4", "peer_address": "d:4"}],
}
NOWHERE = "http://127.0.0.1:1"


def config(directory: Path, **fields: Any) -> Config:
    sound: dict[str, Any] = {
        "node_id": NodeId("n1"),
        "data_dir": directory,
        "listen": Address("127.0.0.1", 8001),
        "peer_listen": Address("127.0.0.1", 9001),
        "cluster": parse_cluster(CLUSTER),
    }
    return Config(**{**sound, **fields})


def joiner(directory: Path, *urls: str) -> Config:
    return config(directory, node_id=NodeId("n4"), cluster={}, join=urls)


@asynccontextmanager
async def member(*answers: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """Gives ``answers`` one after the other, the last one for ever; its URL, and what it was asked."""
    asked: list[str] = []
    left = list(answers)

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(f"{request.method} {request.rel_url}")
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, int):
            return web.Response(status=now)
        return web.Response(text=now) if isinstance(now, str) else web.json_response(now)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_a_founder(tmp_path: Path) -> None:
    founder = config(tmp_path)
    beginning = await begin(founder, OsFiles(), tmp_path)
    charter = beginning.charter
    assert beginning.is_new
    assert (charter.owner.cluster_id, charter.owner.node_id) == (founder.cluster_id, "n1")
    assert charter.founders == {"n1": "127.0.0.1:9001", "n2": "127.0.0.1:9002"}
    assert charter.contacts == {}
    assert OsFiles().names(tmp_path) == []


async def test_a_founder_that_restarts(tmp_path: Path) -> None:
    """The addresses may have changed, and the id doesn't; the founders may not."""
    files = OsFiles()
    charter = (await begin(config(tmp_path), files, tmp_path)).charter
    write_charter(files, tmp_path, charter)
    for cluster in (CLUSTER, "n1=elsewhere:1,n2=elsewhere:2"):
        beginning = await begin(config(tmp_path, cluster=parse_cluster(cluster)), files, tmp_path)
        assert (beginning.charter, beginning.is_new) == (charter, False)
    beginning = await begin(config(tmp_path, cluster={}, join=(NOWHERE,)), files, tmp_path)
    assert beginning.charter == charter  # asked nobody
    for wrong in (
        {"cluster": parse_cluster("n1=127.0.0.1:9001,n3=127.0.0.1:9003")},
        {"cluster": parse_cluster("n1=127.0.0.1:9001")},
        {"cluster_name": "another"},
        {"node_id": NodeId("n2")},
    ):
        with pytest.raises(StartError, match="this data directory") as refused:
            await begin(config(tmp_path, **wrong), files, tmp_path)
        assert refused.value.exit_code == 78
        assert str(tmp_path) in str(refused.value)


async def test_a_joiner_asks_until_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_PAUSE_S", 0.0)
    files = OsFiles()
    with capture_logs() as lines:
        async with member(503, 503, "<html>", {**ANSWER, "members": []}, ANSWER) as (url, asked):
            beginning = await begin(joiner(tmp_path, NOWHERE, url), files, tmp_path)
    charter = beginning.charter
    assert beginning.is_new
    assert (charter.owner.cluster_id, charter.owner.node_id) == (CLUSTER_ID, "n4")
    assert (charter.founders, charter.contacts) == ({}, {"n1": "a:1"})
    assert asked == ["GET /v1/cluster"] * 5
    reasons = [line["reason"] for line in lines if line["event"] == "can't ask which cluster to join yet"]
    assert len(reasons) == 4  # nobody there; 503, once; no JSON; nobody
    assert reasons[1] == "answered HTTP 503"
    write_charter(files, tmp_path, charter)
    assert (await begin(joiner(tmp_path, NOWHERE), files, tmp_path)).charter == charter


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"cluster_id": "c1", "members": [{"node": "n1", "peer_address": "a:1"}]}',
        b'{"cluster_id": "0123456789abcdef", "members": [{"node": "n1"}]}',
        b'{"cluster_id": "0123456789abcdef", "members": [{"node": "n1", "peer_address": null}]}',
        b'{"cluster_id": "0123456789abcdef", "members": [{"node": "n1", "peer_address": "a"}]}',
        b'{"cluster_id": "0123456789abcdef", "members": 5}',
        b'{"cluster_id": 5, "members": [{"node": "n1", "peer_address": "a:1"}]}',
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_cluster(raw)
