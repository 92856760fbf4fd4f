"""Every call of keys, ranges and transactions as it is documented, on a real cluster, asked at any node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster, running

pytestmark = pytest.mark.cluster
QUOTA_BYTES = 100_000


class Asking:
    """Of each node in turn."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._asked = 0

    async def __call__(
        self, method: str, path: str, status: int, *, headers: dict[str, str] | None = None, **body: Any
    ) -> Any:
        """The answer's document, or else its bytes."""
        self._asked += 1
        node = self._cluster.nodes[self._asked % len(self._cluster.nodes)]
        async with self._cluster.session.request(method, node.url + path, headers=headers, **body) as answer:
            raw = await answer.read()
            assert answer.status == status, (method, path, raw)
            return await answer.json(content_type=None) if "json" in answer.content_type else raw


async def at_level_2(cluster: Cluster) -> bool:
    statuses = [await cluster.status(node) for node in cluster.nodes]
    return all(status is not None and status["level"] == 2 for status in statuses)


async def test_the_calls_as_they_are_documented(tmp_path: Path) -> None:
    async with running(tmp_path, options=["--quota-bytes", str(QUOTA_BYTES)]) as cluster:
        ask = Asking(cluster)
        await cluster.until(lambda: at_level_2(cluster), "all nodes keep what was before")
        await keys_and_conditions(ask)
        await ranges_and_the_past(ask)
        await transactions_and_batches(ask)
        await one_key_for_all_nodes(ask)
        await times_to_live(ask)
        await a_full_store(ask)


async def keys_and_conditions(ask: Asking) -> None:
    created = await ask("PUT", "/v1/kv/config/a", 201, data=b"1", headers={"Content-Type": "text/plain"})
    revision = created["revision"]
    assert created == {"key": "config/a", "revision": revision, "version": 1, "created": True}
    assert (await ask("PUT", "/v1/kv/config/a", 200, data=b"2"))["version"] == 2
    assert await ask("GET", "/v1/kv/config/a", 200) == b"2"
    assert await ask("GET", f"/v1/kv/config/a?revision={revision}", 200) == b"1"
    assert await ask("GET", "/v1/kv/config/a?format=json", 200) == {
        "key": "config/a",
        "value": "2",
        "create_revision": revision,
        "mod_revision": revision + 1,
        "version": 2,
        "lease": None,
        "content_type": "application/octet-stream",  # what this client says of bytes
    }
    await ask("GET", "/v1/kv/config/a", 304, headers={"If-None-Match": f'"{revision + 1}"'})
    await ask("PUT", "/v1/kv/config/a", 412, data=b"3", headers={"If-Match": f'"{revision}"'})
    await ask("PUT", "/v1/kv/config/a?if_absent=true", 412, data=b"3")
    await ask("PUT", f"/v1/kv/config/a?if_revision={revision + 1}", 200, data=b"3")
    assert (await ask("DELETE", "/v1/kv/config/a", 200))["deleted"] == 1
    assert (await ask("DELETE", "/v1/kv/config/a", 200))["deleted"] == 0
    await ask("GET", "/v1/kv/config/a", 404)
    await ask("GET", "/v1/kv/config/a?revison=1", 400)


async def ranges_and_the_past(ask: Asking) -> None:
    for key in ("r/a", "r/b/1", "r/b/2", "r/c"):
        await ask("PUT", f"/v1/kv/{key}", 201, data=b"v")
    page = await ask("GET", "/v1/kv?prefix=r/&delimiter=/&count=true", 200)
    assert ([item["key"] for item in page["items"]], page["prefixes"]) == (["r/a", "r/c"], ["r/b/"])
    assert page["count"] == 4
    first = await ask("GET", "/v1/kv?prefix=r/&limit=2&keys_only=true", 200)
    await ask("PUT", "/v1/kv/r/b/3", 201, data=b"v")
    rest = await ask("GET", f"/v1/kv?prefix=r/&keys_only=true&cursor={first['cursor']}", 200)
    assert [item["key"] for item in first["items"] + rest["items"]] == ["r/a", "r/b/1", "r/b/2", "r/c"]
    assert rest["revision"] == first["revision"]
    await ask("DELETE", "/v1/kv", 400)
    deleted = await ask("DELETE", "/v1/kv?start=r/b/&end=r/b0", 200)
    assert deleted == {"deleted": 3, "revision": first["revision"] + 2}
    before = await ask("GET", f"/v1/kv?prefix=r/&revision={first['revision']}&count=true&limit=0", 200)
    assert before["count"] == 4
    done = await ask("POST", "/v1/compact", 200, json={"revision": deleted["revision"]})
    assert done == {"compacted": deleted["revision"], "revision": deleted["revision"]}
    gone = await ask("GET", f"/v1/kv/r/a?revision={first['revision']}", 410)
    assert (gone["code"], gone["oldest"]) == ("compacted", deleted["revision"])


async def transactions_and_batches(ask: Asking) -> None:
    move = {
        "if": [{"key": "from", "target": "value", "op": "==", "value": "5"}],
        "then": [{"increment": {"key": "from", "by": -5}}, {"increment": {"key": "to", "by": 5}}],
        "else": [{"get": {"key": "from"}}],
    }
    await ask("PUT", "/v1/kv/from", 201, data=b"5")
    done = await ask("POST", "/v1/txn", 200, json=move)
    assert done["succeeded"]
    assert [each["increment"]["value"] for each in done["results"]] == [0, 5]
    other = await ask("POST", "/v1/txn", 200, json=move)
    assert not other["succeeded"]
    assert other["results"][0]["get"]["item"]["value"] == "0"
    assert other["revision"] == done["revision"]
    operations = [{"put": {"key": f"batch/{n}", "value": str(n)}} for n in range(100)]
    batch = await ask("POST", "/v1/batch", 200, json={"ops": [*operations, {"delete": {"prefix": "batch/"}}]})
    assert batch["results"][-1] == {"delete": {"deleted": 100}}
    await ask("POST", "/v1/batch", 413, json={"ops": [{"get": {"key": "k"}}] * 10_001})
    await ask("POST", "/v1/txn", 413, json={"then": [{"get": {"key": "k"}}] * 1_001})


async def one_key_for_all_nodes(ask: Asking) -> None:
    """The same request through every node at once is done once."""
    headers = {"Idempotency-Key": "7b0c-once"}
    same = {"then": [{"increment": {"key": "once"}}]}
    answers = [ask("POST", "/v1/txn", 200, json=same, headers=headers) for _ in range(6)]
    assert {answer["results"][0]["increment"]["value"] for answer in await asyncio.gather(*answers)} == {1}
    reused = await ask("DELETE", "/v1/kv/once", 422, headers=headers)
    assert (reused["code"], reused["outcome"]) == ("token_reused", "not_applied")


async def times_to_live(ask: Asking) -> None:
    put = await ask("PUT", "/v1/kv/session?ttl=300ms", 201, data=b"v")
    assert put["lease"] > 0
    await ask("GET", f"/v1/kv/session?wait=30s&since={put['revision']}&timeout=30s", 404)
    await ask("PUT", "/v1/kv/session?lease=999999", 404, data=b"v")


async def a_full_store(ask: Asking) -> None:
    await ask("PUT", "/v1/kv/big", 201, data=b"v" * (QUOTA_BYTES * 9 // 10))
    for _ in range(3):  # what a node doesn't know yet, it can't count
        await ask("GET", "/v1/kv/big", 200)
    refused = await ask("PUT", "/v1/kv/more", 507, data=b"v" * (QUOTA_BYTES // 10))
    assert refused["code"] == "quota_exceeded"
    await ask("DELETE", "/v1/kv/big", 200)
    await ask("PUT", "/v1/kv/more", 201, data=b"v" * (QUOTA_BYTES // 10))
