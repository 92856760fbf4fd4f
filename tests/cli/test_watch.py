"""``raftkv watch`` on real REST servers: what it prints, and that it goes on at another node."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import main
from raftkv.kv.commands import encode_compact, encode_delete, encode_put
from tests.api.node import LIMITS, LoopThread, RestNode
from tests.cli.stub import dead_url

DEADLINE_S = 20.0


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def node(thread: LoopThread) -> Iterator[RestNode]:
    node = RestNode(thread)
    thread.run(node.service.require("history", 1000))
    yield node
    node.close()


def url(node: RestNode) -> str:
    return f"http://127.0.0.1:{node.port}"


def run(node: RestNode, *arguments: str) -> Result:
    return CliRunner().invoke(
        main, ("watch", *arguments), env={"RAFTKV_ENDPOINTS": f"{dead_url()},{url(node)}"}
    )


def write(thread: LoopThread, *nodes: RestNode, key: bytes = b"a", value: bytes | None = b"v") -> None:
    """The same command on each, as a cluster has it."""
    command = encode_delete(key) if value is None else encode_put(key, value)
    for node in nodes:
        thread.run(node.service.propose(command, 1000))


def test_lines(thread: LoopThread, node: RestNode) -> None:
    write(thread, node, value=b"x\ty")
    write(thread, node, key=b"b")
    write(thread, node, value=None)
    result = run(node, "--from", "1", "--limit", "3")
    assert (result.exit_code, result.stdout) == (0, "1\tput\ta\tx\\ty\n2\tput\tb\tv\n3\tdelete\ta\n")
    assert run(node, "--key", "a", "--from", "2", "--limit", "1").stdout == "3\tdelete\ta\n"
    assert run(node, "--prefix", "b", "--from", "1", "--limit", "1").stdout == "2\tput\tb\tv\n"


def test_json(thread: LoopThread, node: RestNode) -> None:
    write(thread, node, value=b"1")
    write(thread, node, value=b"2")
    result = run(node, "--from", "2", "--limit", "1", "--prev", "--output", "json")
    event = json.loads(result.stdout)
    assert (event["event"], event["id"], event["value"], event["prev"]["value"]) == ("put", "2", "2", "1")


def test_what_is_gone(thread: LoopThread, node: RestNode) -> None:
    write(thread, node)
    write(thread, node)
    thread.run(node.service.propose(encode_compact(2), 1000))
    result = run(node, "--from", "1")
    assert result.exit_code == 1
    assert "compacted" in result.stderr


def test_a_wrong_use(node: RestNode) -> None:
    assert run(node, "--key", "a", "--prefix", "b").exit_code == 2


def start(*nodes: RestNode) -> subprocess.Popen[str]:
    endpoints = ",".join(map(url, nodes))
    return subprocess.Popen(
        [sys.executable, "-m", "raftkv", "watch", "--endpoints", endpoints, "--from", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "dead"])
def test_it_goes_on_at_another_node(thread: LoopThread, stops: bool) -> None:
    """Without losing anything, or printing it twice; and it ends when it is told to."""
    nodes = [RestNode(thread, LIMITS) for _ in range(2)]
    for node in nodes:
        thread.run(node.service.require("history", 1000))
    watching = start(*nodes)
    try:
        assert watching.stdout is not None
        write(thread, *nodes, value=b"1")
        assert watching.stdout.readline() == "1\tput\ta\t1\n"
        write(thread, nodes[1], value=b"2")
        if stops:
            nodes[0].drain(60.0).result(DEADLINE_S)
        nodes[0].close()
        assert watching.stdout.readline() == "2\tput\ta\t2\n"
        write(thread, nodes[1], value=b"3")
        assert watching.stdout.readline() == "3\tput\ta\t3\n"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(DEADLINE_S) == 0
        assert watching.stderr is not None
        assert watching.stderr.read() == ""
    finally:
        watching.kill()
        watching.communicate()
        nodes[1].close()
