"""``raftkv service`` on a node's real REST server."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from raftkv.cli import output
from raftkv.errors import NoQuorum
from raftkv.kv.commands import encode_revoke
from raftkv.kv.places import SERVICE, Queue, places
from tests.api.node import LoopThread, RestNode
from tests.cli.asking import DEADLINE_S, run, says, started

WEB = Queue(SERVICE, b"web")
LISTED = "ID  ADDRESS  LEASE  META\n"


@pytest.fixture
def node() -> Iterator[RestNode]:
    thread = LoopThread()
    node = RestNode(thread)
    with capture_logs():
        yield node
    node.close()
    thread.close()


def instances(node: RestNode) -> int:
    return len(places(node.store, WEB))


def test_an_instance_is_listed_until_it_is_removed(node: RestNode) -> None:
    result = run(node, "service", "register", "web", "h:80", "--id", "i1", "--meta", '{"zone": "a"}')
    assert (result.exit_code, result.output) == (0, "i1 is listed, and goes with lease 1\n")
    assert run(node, "service", "list", "web").output == (
        'ID  ADDRESS  LEASE  META\ni1  h:80     1      {"zone": "a"}\n'
    )
    (found,) = json.loads(run(node, "service", "list", "web", "--output", "json").output)["instances"]
    assert (found["id"], found["address"], found["meta"]) == ("i1", "h:80", {"zone": "a"})
    assert run(node, "service", "list").output == "SERVICE\nweb\n"
    result = run(node, "service", "remove", "web", "i1")
    assert (result.exit_code, result.output) == (0, "removed instance i1 of web (revision 2)\n")
    result = run(node, "service", "remove", "web", "i1")
    assert (result.exit_code, result.output) == (1, "Error: there is no instance i1 of web\n")
    assert run(node, "service", "list", "web").output == LISTED


def test_a_table_on_a_terminal(node: RestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    assert run(node, "service", "list", "web").output == "nobody serves web\n"
    assert run(node, "service", "register", "web", "[red]h:80", "--id", "i1").exit_code == 0
    head, row = run(node, "service", "list", "web").output.splitlines()
    assert (head.split(), row.split()) == (["ID", "ADDRESS", "LEASE", "META"], ["i1", "[red]h:80", "1"])


def test_an_instance_goes_with_a_lease_that_is_there(node: RestNode) -> None:
    assert run(node, "lease", "grant", "1h", "--id", "7").exit_code == 0
    result = run(node, "service", "register", "web", "h:80", "--lease", "7", "--output", "json")
    assert json.loads(result.output)["lease"] == 7
    assert run(node, "lease", "revoke", "7").exit_code == 0
    assert instances(node) == 0
    assert run(node, "service", "register", "web", "h:80", "--lease", "7").exit_code == 1


def test_it_is_listed_while_its_command_runs_and_again_when_it_was_taken_for_dead(node: RestNode) -> None:
    command = (
        "--ttl",
        "500ms",
        "--id",
        "i1",
        "--",
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo runs; while :; do sleep 0.02; done",
    )
    with started(node, "service", "register", "web", "h:80", *command) as process:
        assert says(process) == b"runs\n"
        assert [place.lease for place in places(node.store, WEB)] == [1]
        node.run(node.service.propose(encode_revoke(1), 1000))
        node.wait(lambda: [place.lease for place in places(node.store, WEB)] == [2])
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=DEADLINE_S) == (b"", b"")
        assert process.returncode == 7
    assert (instances(node), len(node.service.machine.leases)) == (0, 0)


def test_how_it_ends_without_a_cluster_or_a_command(node: RestNode) -> None:
    node.service.propose_error = NoQuorum("no leader")
    register = ("service", "register", "web", "h:80")
    assert run(node, *register, "--timeout", "300ms", "--", "true").exit_code == 1
    assert run(node, *register).exit_code == 4
    node.service.propose_error = RuntimeError("who knows")
    assert run(node, *register).exit_code == 3
    node.service.propose_error = None
    assert run(node, *register, "--", "./nothing-here").exit_code == 127
    assert instances(node) == 0
    assert run(node, *register, "--meta", "{").exit_code == 2
    assert run(node, *register, "--lease", "7", "--", "true").exit_code == 2
    node.service.barrier_error = NoQuorum("no leader")
    assert run(node, "service", "list").exit_code == 4


def test_changes_are_followed(node: RestNode) -> None:
    assert run(node, "service", "register", "web", "h:80", "--id", "i1").exit_code == 0
    with started(node, "service", "watch", "web", "--limit", "4") as process:
        assert says(process) == b"added\ti1\th:80\t1\t\n"
        assert run(node, "service", "register", "web", "h:82", "--id", "i2", "--meta", "[2]").exit_code == 0
        assert says(process) == b"added\ti2\th:82\t2\t[2]\n"
        assert run(node, "service", "register", "web", "h:81", "--id", "i1").exit_code == 0
        assert says(process) == b"changed\ti1\th:81\t3\t\n"
        assert run(node, "service", "remove", "web", "i2").exit_code == 0
        assert process.communicate(timeout=DEADLINE_S) == (b"removed\ti2\th:82\t2\t[2]\n", b"")
        assert process.returncode == 0
    event = json.loads(run(node, "service", "watch", "web", "--limit", "1", "--output", "json").output)
    assert [each["address"] for each in event["instances"]] == ["h:81"]
