"""``txn``, ``batch``, and what the key-value commands say of the past, leases, folders and ranges: against a
node's own handlers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from raftkv.cli import main
from raftkv.kv.commands import encode_level
from raftkv.kv.levels import MACHINE_LEVEL
from tests.api.node import LoopThread, RestNode

LOOSE = {"if": [{"key": "k", "value": "old"}], "then": [{"put": {"key": "k", "value": "new"}}]}


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def node(thread: LoopThread) -> Iterator[RestNode]:
    node = RestNode(thread)
    thread.run(node.service.propose(encode_level(MACHINE_LEVEL), 1000))
    with capture_logs():  # they would stand in the commands' output
        yield node
    node.close()


def run(node: RestNode, *arguments: str, stdin: str | bytes | None = None) -> Result:
    endpoints = f"http://127.0.0.1:{node.port}"
    return CliRunner().invoke(main, [*arguments, "--endpoints", endpoints], input=stdin)


def test_a_transaction_from_a_file_and_from_a_pipe(node: RestNode, tmp_path: Path) -> None:
    file = tmp_path / "swap.json"
    file.write_text(json.dumps({**LOOSE, "else": [{"get": {"key": "k"}}, {"get": {"prefix": "none"}}]}))
    assert run(node, "put", "k", "older").exit_code == 0
    lost = run(node, "txn", str(file))
    assert lost.stdout == "else was done (revision 1)\nget: 1 found\n  k\tolder\nget: 0 found\n"
    assert lost.exit_code == 1, "a script must see that it was the other branch"

    assert run(node, "put", "k", "old").exit_code == 0
    won = run(node, "txn", "-", "--output", "json", stdin=file.read_bytes())
    assert won.exit_code == 0
    results = [{"put": {"revision": 3, "version": 3, "created": False}}]
    assert json.loads(won.stdout) == {"revision": 3, "succeeded": True, "results": results}


def test_a_batch_tells_of_each_operation(node: RestNode) -> None:
    operations = [
        {"put": {"key": "a", "value": "1"}},
        {"increment": {"key": "a", "by": 4}},
        {"txn": {"if": [{"key": "none", "target": "exists"}], "else": [{"get": {"key": "a"}}]}},
        {"delete": {"prefix": "b"}},
    ]
    done = run(node, "batch", "-", stdin=json.dumps({"ops": operations}))
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "put: created (version 1)",
        "increment: now 5",
        "txn: else was done",
        "  get: 1 found",
        "    a\t5",
        "delete: 0 deleted",
        "revision 2",
    ]
    operations = [{"put": {"key": "text", "value": "x"}}, {"increment": {"key": "text"}}]
    failed = run(node, "batch", "-", stdin=json.dumps({"ops": operations}))
    assert failed.exit_code == 1
    assert "error: the value isn't a decimal number\n" in failed.stdout


def test_what_is_no_transaction_is_refused_with_its_reason(node: RestNode) -> None:
    for command in ("txn", "batch"):
        done = run(node, command, "-", stdin="{")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "isn't JSON" in done.stderr


def test_put_with_a_lease(node: RestNode) -> None:
    assert run(node, "put", "k", "v", "--ttl", "30s").stdout == "created k (revision 1, version 1, lease 1)\n"
    assert run(node, "put", "k2", "v", "--lease", "1").exit_code == 0
    assert node.store.leased(1) == [b"k", b"k2"]
    assert run(node, "put", "k", "v", "--ttl", "1s", "--lease", "1").exit_code == 2
    refused = run(node, "put", "k", "v", "--lease", "9")
    assert (refused.exit_code, refused.stderr) == (1, "Error: there is no lease 9; it may have ended\n")


def test_the_past(node: RestNode) -> None:
    for value in ("1", "2"):
        run(node, "put", "k", value)
    run(node, "put", "l", "")
    assert run(node, "get", "k", "--revision", "1").stdout == "1"
    assert json.loads(run(node, "get", "k", "--revision", "1", "--output", "json").stdout)["version"] == 1
    assert run(node, "list", "--revision", "2").stdout == "k\t2\n"
    assert run(node, "list", "--revision", "2", "--count").stdout == "1\n"
    assert "revision 9" in run(node, "get", "k", "--revision", "9").stderr


def test_folders_stand_among_the_keys_in_order(node: RestNode) -> None:
    for key in ("a", "b/1", "b/2", "c", "d/1"):
        run(node, "put", key, "v")
    assert run(node, "list", "--delimiter", "/").stdout == "a\tv\nb/\nc\tv\nd/\n"
    assert run(node, "list", "--delimiter", "/", "--reverse", "--keys-only").stdout == "d/\nc\nb/\na\n"
    assert run(node, "list", "--delimiter", "/", "--limit", "2").stdout == "a\tv\nb/\n"
    assert run(node, "list", "b/", "--delimiter", "/").stdout == "b/1\tv\nb/2\tv\n"
    listed = json.loads(run(node, "list", "--delimiter", "/", "--output", "json").stdout)
    assert listed[1] == {"prefix": "b/"}
    assert run(node, "list", "b/", "--count").stdout == "2\n"
    assert json.loads(run(node, "list", "--count", "--output", "json").stdout) == {"count": 5, "revision": 5}


def test_a_prefix_is_deleted(node: RestNode) -> None:
    for key in ("a/1", "a/2", "b"):
        run(node, "put", key, "v")
    assert run(node, "delete", "a/", "--prefix").stdout == "deleted 2 keys (revision 4)\n"
    assert (
        run(node, "delete", "b", "--prefix", "--output", "json").stdout == '{"deleted": 1, "revision": 5}\n'
    )
    assert run(node, "list").stdout == ""
    assert run(node, "delete", "", "--prefix").exit_code == 2, "not all of them by an empty variable"
