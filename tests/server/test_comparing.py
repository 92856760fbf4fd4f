"""Who is said to have another state, and by how many."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.consensus import Node
from raftkv.consensus.types import Membership, NodeId
from raftkv.errors import StartError
from raftkv.kv import history
from raftkv.kv.commands import encode_level, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.ports import PeerView
from raftkv.replica import Replica
from raftkv.server.comparing import EXIT_DIVERGED, Comparing

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


class Compared:
    """``n1`` at level 2, with the given members and a history of small blocks."""

    def __init__(self, *voters: str) -> None:
        self.machine = KvMachine()
        self.stops: list[StartError] = []
        node = Node(N1, Membership.of(*voters), uniform=lambda least, _: least, now_ms=0.0)
        self.node = node
        replica = Replica(node, self.machine, incarnation=1)
        self.comparing = Comparing(replica=replica, machine=self.machine, on_diverged=self.stops.append)
        self.seq = 0
        self.apply(encode_level(2))

    def apply(self, *commands: bytes) -> None:
        self.seq += 1
        self.machine.apply(0, self.machine.seal(BatchId("n1", 1, self.seq, 1), commands))

    def put(self, value: bytes) -> None:
        self.apply(encode_put(b"k", value))

    @property
    def point(self) -> dict[str, Any]:
        return self.comparing.report()

    def look(self, **said: dict[str, Any] | None) -> str | None:
        self.comparing.look(
            [
                PeerView(NodeId(node), "a:1", True, None, status, None if status is None else 1.0)
                for node, status in said.items()
            ]
        )
        return self.comparing.alarm


def other(point: dict[str, Any]) -> dict[str, Any]:
    return {**point, "checksum": point["checksum"] ^ 1}


def test_who_agrees_and_who_is_elsewhere_says_nothing() -> None:
    compared = Compared("n1", "n2", "n3")
    compared.put(b"v")
    then = compared.point
    assert compared.look(n2=then, n3=None) is None
    compared.put(b"w")
    assert compared.look(n2=then, n3={"revision": 7, "checksum": 1, "mark": None}) is None
    assert not compared.stops


def test_a_majority_against_a_node_stops_it() -> None:
    compared = Compared("n1", "n2", "n3")
    compared.put(b"v")
    wrong = other(compared.point)
    alarm = compared.look(n2=wrong)
    assert alarm == "n1 and n2 have different states at revision 1; no majority says who is right"
    compared.look(n2=wrong)
    compared.put(b"w")  # what was said before counts
    compared.look(n2=None, n3=wrong)
    assert not compared.stops  # the others are to hear of it
    compared.look(n2=None, n3=None)
    (stop,) = compared.stops
    assert stop.exit_code == EXIT_DIVERGED
    assert "n1 and n2, n3 have different states at revision 1" in str(stop)


def test_those_against_a_node_must_agree() -> None:
    compared = Compared("n1", "n2", "n3")
    compared.put(b"v")
    point = compared.point
    compared.look(n2=other(point), n3={**point, "checksum": point["checksum"] ^ 2})
    assert compared.comparing.alarm is not None
    assert not compared.stops


def test_with_two_members_nobody_stops() -> None:
    compared = Compared("n1", "n2")
    compared.put(b"v")
    assert compared.look(n2=other(compared.point)) is not None
    assert not compared.stops


def test_a_majority_with_a_node_is_named() -> None:
    compared = Compared("n1", "n2", "n3")
    compared.put(b"v")
    alarm = compared.look(n2=compared.point, n3=other(compared.point))
    assert alarm == "n1 and n3 have different states at revision 1; a majority agrees with n1"


def test_an_alarm_goes_with_the_member_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = Compared("n1", "n2", "n3")
    compared.put(b"v")
    point = compared.point
    assert compared.look(n2=point, n3=other(point)) is not None
    assert compared.look(n2=point, n3=None) is not None  # what was said stays said
    members = Membership.of("n1", "n2", "n4")
    monkeypatch.setattr(type(compared.node), "membership", property(lambda _: members))
    assert compared.look(n2=point, n4=point) is None


def test_who_is_no_member_does_not_count() -> None:
    compared = Compared("n1", "n2")
    compared.put(b"v")
    assert compared.look(n7=other(compared.point), n8=other(compared.point)) is None


@pytest.mark.parametrize(
    "status", [{}, {"revision": True, "checksum": 1}, {"revision": "1", "checksum": "x", "mark": {"1": 2}}]
)
def test_a_report_may_be_anything(status: dict[str, Any]) -> None:
    compared = Compared("n1", "n2")
    compared.put(b"v")
    assert compared.look(n2=status) is None


def test_busy_nodes_meet_at_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen at different revisions, always: their last full blocks end at the same."""
    monkeypatch.setattr(history, "BLOCK_BYTES", 300)
    compared, wrong = Compared("n1", "n2"), Compared("n2", "n1")
    for number in range(10):
        compared.put(b"%d" % number)
        wrong.put(b"%d" % (number or 99))
    mark = compared.point["mark"]
    assert mark[0] < compared.point["revision"]
    assert wrong.point["mark"][0] == mark[0]
    wrong.put(b"later")
    assert compared.look(n2={**wrong.point, "mark": mark}) is None
    assert compared.look(n2=wrong.point) is not None
