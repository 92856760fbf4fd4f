"""``raftkv lock`` and ``raftkv lease``, on a node's real REST server whose cluster time the test moves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from raftkv.cli import main
from raftkv.errors import NoQuorum
from raftkv.kv.commands import encode_keep_alive, encode_put, encode_tick
from raftkv.kv.places import LOCK, Queue, places
from raftkv.ports import Candidate
from tests.api.node import LoopThread, RestNode
from tests.cli.asking import DEADLINE_S, run, says, url
from tests.cli.asking import started as started_command
from tests.cli.stub import dead_url

JOB = Queue(LOCK, b"job")


@pytest.fixture
def node() -> Iterator[RestNode]:
    thread = LoopThread()
    node = RestNode(thread)
    with capture_logs():  # else they were among what the command says
        yield node
    node.close()
    thread.close()


def started(
    node: RestNode, *command: str, options: tuple[str, ...] = ()
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return started_command(node, "lock", "job", *options, "--", *command)


def hold(node: RestNode) -> int:
    """Somebody else has the lock. Its lease."""
    work = node.service.queues.acquire(JOB, Candidate(ttl_ms=10**6), wait_ms=0, timeout_ms=1000)
    return node.run(work).lease


def queued(node: RestNode) -> int:
    return len(places(node.store, JOB))


def test_the_command_runs_with_its_token_and_the_lock_is_released(node: RestNode, tmp_path: Path) -> None:
    for token in (1, 3):
        seen = tmp_path / f"seen{token}"
        result = run(node, "lock", "job", "--", "sh", "-c", f"echo $RAFTKV_FENCING_TOKEN > {seen}; exit 7")
        assert (result.exit_code, result.output) == (7, "")
        assert int(seen.read_text()) == token
        assert queued(node) == 0
        assert len(node.service.machine.leases) == 0


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["./nothing-here"], 127, "Error: ./nothing-here: no such file or directory\n"),
        (["/"], 126, "Error: /: permission denied\n"),
    ],
)
def test_how_the_command_ends_is_said(node: RestNode, command: list[str], code: int, says: str) -> None:
    result = run(node, "lock", "job", "--", *command)
    assert (result.exit_code, result.output) == (code, says)
    assert queued(node) == 0


def test_who_does_not_wait(node: RestNode, tmp_path: Path) -> None:
    hold(node)
    for wait in ("0s", "50ms"):
        result = run(node, "lock", "job", "--wait", wait, "--", "touch", str(tmp_path / "ran"))
        assert (result.exit_code, result.output) == (1, "Error: the lock job is held by another\n")
    assert not (tmp_path / "ran").exists()
    assert (queued(node), len(node.service.machine.leases)) == (1, 1)


def test_who_holds_it_is_shown(node: RestNode) -> None:
    result = run(node, "lock", "job", "--show")
    assert (result.exit_code, result.output) == (1, "Error: nobody has the lock job\n")
    hold(node)
    result = run(node, "lock", "job", "--show")
    shown = "VALUE  FENCING TOKEN  LEASE  WAITING\n-      1              1      0\n"
    assert (result.exit_code, result.output) == (0, shown)
    found = json.loads(run(node, "lock", "job", "--show", "--output", "json").output)
    assert found["holder"] == {"lease": 1, "fencing_token": 1, "value": ""}
    for arguments in (("job",), ("job", "--show", "--", "true")):
        assert run(node, "lock", *arguments).exit_code == 2


def test_no_node_answers(tmp_path: Path) -> None:
    arguments = ["lock", "job", "--timeout", "300ms", "--endpoints", dead_url(), "--", "true"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.output.startswith("Error: no endpoint answered: ")


def test_it_waits_and_keeps_its_lease_alive_meanwhile(node: RestNode) -> None:
    lease = hold(node)
    with started(node, "true", options=("--ttl", "300ms")) as process:
        node.wait(lambda: queued(node) == 2)
        own = places(node.store, JOB)[1].lease
        node.wait(lambda: node.service.commands.count(encode_keep_alive(own)) >= 3)
        node.run(node.service.queues.release(JOB, lease=lease, token=0, timeout_ms=1000))
        assert process.communicate(timeout=DEADLINE_S) == (b"", b"")
        assert process.returncode == 0


def test_a_lease_that_ends_takes_the_command_with_it(node: RestNode) -> None:
    script = ("sh", "-c", "echo runs; exec sleep 60")
    with started(node, *script, options=("--ttl", "900ms")) as process:
        assert says(process) == b"runs\n"
        node.service.time_ms += 900
        node.run(node.service.propose(encode_tick(), 1000))
        _, said = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, said) == (1, b"Error: the lock job was lost, and the command ended\n")


def test_a_command_is_told_before_the_lock_may_be_anothers(node: RestNode) -> None:
    script = ("sh", "-c", "trap 'echo told; exit 0' TERM; echo runs; while :; do sleep 0.02; done")
    with started(node, *script, options=("--ttl", "2s", "--timeout", "200ms")) as process:
        assert says(process) == b"runs\n"
        node.service.propose_error = NoQuorum("no leader")
        output, said = process.communicate(timeout=DEADLINE_S)
        assert output == b"told\n"
        assert process.returncode == 1
        assert b"the lock job is not released" in said
        assert b"Error: the lock job was lost, and the command ended\n" in said


@pytest.mark.parametrize("waits", [True, False])
def test_sigterm_releases_the_lock(node: RestNode, waits: bool) -> None:
    if waits:
        hold(node)
    with started(node, "sh", "-c", "echo runs; exec sleep 60") as process:
        if waits:
            node.wait(lambda: queued(node) == 2)
        else:
            assert says(process) == b"runs\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 128 + signal.SIGTERM
        node.wait(lambda: queued(node) == waits)


def test_leases(node: RestNode) -> None:
    result = run(node, "lease", "grant", "30s")
    assert (result.exit_code, result.output) == (0, "1\n")
    result = run(node, "lease", "grant", "30s", "--id", "7", "--output", "json")
    assert json.loads(result.output) == {"lease": 7, "ttl_ms": 30_000, "revision": 0}
    node.run(node.service.propose(encode_put(b"a\n", b"", lease=7), 1000))
    assert run(node, "lease", "get", "7").output == "lease 7: at most 30000 ms of 30000 ms left\na\\n\n"
    node.service.leads, node.service.time_ms = True, 10_000
    assert run(node, "lease", "keepalive", "7").output == "lease 7 lives for 30000 ms\n"
    assert run(node, "lease", "list").output == (
        "LEASE  TTL       REMAINING\n1      30000 ms  20000 ms\n7      30000 ms  30000 ms\n"
    )
    listed = json.loads(run(node, "lease", "list", "--output", "json").output)
    assert [each["lease"] for each in listed] == [1, 7]
    result = run(node, "lease", "revoke", "7")
    assert (result.exit_code, result.output) == (0, "lease 7 has ended; 1 keys went with it\n")
    for verb in ("revoke", "keepalive", "get"):
        result = run(node, "lease", verb, "7")
        assert (result.exit_code, result.output) == (
            1,
            "Error: there is no lease 7; it may have ended\n",
        )
    assert run(node, "lease", "grant", "soon").exit_code == 1
    assert run(node, "lease", "get", "x").exit_code == 2


def test_the_environment_of_the_command(node: RestNode, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    assert run(node, "lock", "job", "--", "sh", "-c", f"env > {seen}").exit_code == 0
    lines = seen.read_text().splitlines()
    assert {"RAFTKV_FENCING_TOKEN=1", "RAFTKV_HELD_LEASE=1"} <= set(lines)
    assert f"PATH={os.environ['PATH']}" in lines


def test_what_the_command_puts_stays_when_the_lock_is_released(node: RestNode) -> None:
    """What it is told must not be taken for options of commands that it runs itself."""
    put = (sys.executable, "-m", "raftkv", "put", "k", "v", "--endpoints", url(node))
    assert run(node, "lock", "job", "--", *put).exit_code == 0
    item = node.store.get(b"k")
    assert item is not None
    assert item.lease == 0
