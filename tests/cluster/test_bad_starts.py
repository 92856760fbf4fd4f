"""Starts that must be refused: an exit code, and one clear line for whoever tried."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.cluster.harness import VERDICT, Cluster, Node, make_nodes, running

pytestmark = pytest.mark.cluster

USAGE, UNUSABLE, CONFIG = 2, 73, 78


async def refused(*arguments: str) -> tuple[int, str]:
    """Run ``raftkv serve`` to its end: its exit code, and its one line on stderr that isn't of the log."""
    process = await asyncio.create_subprocess_exec(
        *make_nodes(Path("/nonexistent"), 1)[0].command[:4],
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(15):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = [line for line in (out + err).decode().splitlines() if line and not line.startswith("{")]
    if process.returncode == USAGE:
        lines = lines[-1:]  # click's usage stands above
    assert len(lines) == 1, lines
    assert lines[0].startswith(VERDICT)
    return process.returncode or 0, lines[0]


def options(node: Node, **changed: str) -> list[str]:
    """The node's own options with some replaced; "" leaves one out."""
    given = dict(zip(node.command[4::2], node.command[5::2], strict=True))
    given |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    return [part for name, value in given.items() if value for part in (name, value)]


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"id": ""}, USAGE, "--id"),
        ({"cluster": ""}, USAGE, "--cluster"),
        ({"id": "n9"}, CONFIG, "not --id n9"),
        ({"cluster": "n1"}, CONFIG, "ID=HOST:PORT"),
        ({"cluster": "n1=127.0.0.1"}, CONFIG, "HOST:PORT"),
        ({"cluster": "n1=127.0.0.1:9001,n1=127.0.0.1:9002"}, CONFIG, "twice"),
        ({"listen": "8001"}, CONFIG, "--listen"),
        ({"advertise": "here"}, CONFIG, "--advertise"),
        ({"heartbeat_ms": "nan"}, CONFIG, "heartbeat"),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
async def test_a_bad_command_line(tmp_path: Path, changed: dict[str, str], code: int, said: str) -> None:
    (node,) = make_nodes(tmp_path, 1)
    exit_code, line = await refused(*options(node, **changed))
    assert (exit_code, said in line) == (code, True), line
    assert not node.data_dir.exists(), "a refused start leaves nothing behind"


async def test_a_data_directory_that_is_not_this_nodes(tmp_path: Path) -> None:
    """Locked by a running node, another node's, or another cluster's: named, and left as it is."""
    async with running(tmp_path, size=3) as cluster:
        n1, n2, _ = cluster.nodes
        assert (await cluster.put(n1, "key", "value")).status == 201
        exit_code, line = await refused(*n1.command[4:])
        assert exit_code == UNUSABLE
        assert str(n1.pid) in line
        await stop(n2)
        before = contents(n2.data_dir)
        stranger = make_nodes(tmp_path, 1)[0]
        for arguments in (
            options(n1, data_dir=str(n2.data_dir), listen=stranger_listen(stranger)),
            options(n2, cluster_name="another"),
        ):
            exit_code, line = await refused(*arguments)
            assert exit_code == CONFIG
            assert str(n2.data_dir) in line
        assert contents(n2.data_dir) == before
        n2.start()
        await cluster.caught_up(n2)
        await still_serves(cluster)


async def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (node,) = make_nodes(tmp_path, 1)
    file = tmp_path / "file"
    file.write_text("not a directory")
    for place in (file, file / "below"):
        exit_code, line = await refused(*options(node, data_dir=str(place)))
        assert exit_code == UNUSABLE
        assert str(file) in line


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    (node,) = make_nodes(tmp_path, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name in ("listen", "peer_listen"):
            exit_code, line = await refused(*options(node, **{name: address}))
            assert exit_code == UNUSABLE
            assert address in line


def stranger_listen(stranger: Node) -> str:
    return f"127.0.0.1:{stranger.port}"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "LOCK"}


async def stop(node: Node) -> None:
    node.signal(signal.SIGTERM)
    assert await node.exit_code() == 0


async def still_serves(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert (await cluster.get(node, "key")).raw == b"value"
