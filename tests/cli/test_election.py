"""``raftkv election`` on a node's real REST server. What happens to a COMMAND is in test_lock."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from raftkv.cli.queues import different
from raftkv.errors import NoQuorum
from raftkv.kv.places import ELECTION, Queue, places
from raftkv.ports import Candidate
from tests.api.node import LoopThread, RestNode
from tests.cli.asking import DEADLINE_S, run, says, started

CRON = Queue(ELECTION, b"cron")


@pytest.fixture
def node() -> Iterator[RestNode]:
    thread = LoopThread()
    node = RestNode(thread)
    with capture_logs():  # else they were among what the command says
        yield node
    node.close()
    thread.close()


def queued(node: RestNode) -> int:
    return len(places(node.store, CRON))


def lead(node: RestNode, value: bytes) -> int:
    """Somebody leads, and says ``value``. Its lease."""
    work = node.service.queues.acquire(CRON, Candidate(value, 0, 10**6), wait_ms=0, timeout_ms=1000)
    return node.run(work).lease


def test_a_command_runs_while_it_leads(node: RestNode, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"echo $RAFTKV_FENCING_TOKEN $RAFTKV_HELD_LEASE > {seen}; exit 7"
    result = run(node, "election", "campaign", "cron", "--value", "me", "--", "sh", "-c", script)
    assert (result.exit_code, result.output, seen.read_text()) == (7, "", "1 1\n")
    assert (queued(node), len(node.service.machine.leases)) == (0, 0)


def test_what_it_says_is_seen_while_its_command_runs(node: RestNode) -> None:
    script = ("sh", "-c", "echo runs; exec sleep 60")
    with started(node, "election", "campaign", "cron", "--value", "a\tb", "--", *script) as process:
        assert says(process) == b"runs\n"
        shown = run(node, "election", "leader", "cron").output
        assert shown.splitlines()[1].split() == ["a\\tb", "1", "1", "0"]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 128 + signal.SIGTERM
    node.wait(lambda: not queued(node))


def test_a_script_leads_with_a_lease_of_its_own(node: RestNode) -> None:
    for lease in ("7", "8"):
        assert run(node, "lease", "grant", "1h", "--id", lease).exit_code == 0
    result = run(node, "election", "campaign", "cron", "--lease", "7", "--value", "seven")
    assert (result.exit_code, result.output) == (0, "lease 7 has the lead of cron (fencing token 1)\n")
    result = run(node, "election", "campaign", "cron", "--lease", "7", "--output", "json")
    assert json.loads(result.output)["fencing_token"] == 1
    result = run(node, "election", "campaign", "cron", "--lease", "8", "--wait", "0s")
    assert (result.exit_code, result.output) == (1, "Error: the lead of cron is held by another\n")
    result = run(node, "election", "campaign", "cron", "--lease", "9")
    assert (result.exit_code, result.output) == (
        1,
        "Error: the lead of cron was not had: lease 9 has ended\n",
    )
    result = run(node, "election", "proclaim", "cron", "seven, busy", "--lease", "7")
    assert (result.exit_code, result.output) == (0, "lease 7 has the lead of cron, and says seven, busy\n")
    assert run(node, "election", "leader", "cron").output.splitlines()[1].startswith("seven, busy  1  ")
    result = run(node, "election", "proclaim", "cron", "eight", "--lease", "8")
    assert result.exit_code == 1
    assert "lease 8 doesn't lead here" in result.output
    result = run(node, "election", "resign", "cron", "--lease", "7")
    assert (result.exit_code, result.output) == (0, "lease 7 has left the lead of cron (revision 4)\n")
    result = run(node, "election", "resign", "cron", "--lease", "7")
    said = "Error: lease 7 neither has the lead of cron nor waits for it\n"
    assert (result.exit_code, result.output) == (1, said)
    assert run(node, "election", "leader", "cron").exit_code == 1


def test_usage(node: RestNode) -> None:
    for arguments in (
        ("campaign", "cron"),
        ("campaign", "cron", "--lease", "7", "--", "true"),
        ("resign", "cron"),
    ):
        assert run(node, "election", *arguments).exit_code == 2


def test_no_quorum_and_an_unknown_outcome_have_codes_of_their_own(node: RestNode) -> None:
    lease = str(lead(node, b""))
    node.service.barrier_error = NoQuorum("no leader")
    assert run(node, "election", "leader", "cron").exit_code == 4
    node.service.barrier_error = None
    node.service.propose_error = RuntimeError("who knows")
    with capture_logs():
        assert run(node, "election", "resign", "cron", "--lease", lease).exit_code == 3


def test_a_state_that_another_node_begins_with_is_not_printed_again() -> None:
    one, two = {"event": "leader", "leader": 1}, {"event": "leader", "leader": None}
    assert list(different(iter([one, one, two, two, one]))) == [one, two, one]


def test_leaders_are_followed(node: RestNode) -> None:
    with started(node, "election", "observe", "cron", "--limit", "3") as process:
        assert says(process) == b"nobody\n"
        lease = lead(node, b"one")
        assert says(process) == b"leads\tone\t1\t1\n"
        node.run(node.service.queues.release(CRON, lease=lease, token=0, timeout_ms=1000))
        assert process.communicate(timeout=DEADLINE_S) == (b"nobody\n", b"")
        assert process.returncode == 0
    event = json.loads(run(node, "election", "observe", "cron", "--limit", "1", "--output", "json").output)
    assert event == {"event": "leader", "name": "cron", "leader": None}
