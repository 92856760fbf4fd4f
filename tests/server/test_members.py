"""What a node's process makes of who the members are: its links, where it is listed, its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from structlog.testing import capture_logs

from raftkv.consensus.log import Log
from raftkv.consensus.membership import encode_membership
from raftkv.consensus.types import (
    NOBODY,
    AddLearner,
    Change,
    Entry,
    EntryKind,
    Index,
    Learner,
    Membership,
    Move,
    NodeId,
    Term,
    Timing,
)
from raftkv.errors import ChangeRefused
from raftkv.ports import PeerView
from raftkv.server.members import Members
from raftkv.storage.charter import Charter
from raftkv.storage.segment import Owner
from tests.server.lone import lone
from tests.server.virtual_time import advance, in_virtual_time, settle

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
AT = {"n1": "a:1", "n2": "b:2", "n3": "c:3"}
THREE = Membership.of("n1", "n2", "n3", addresses=AT)
WITHOUT_ME = Membership.of("n2", "n3", addresses={"n2": "b:2", "n3": "c:3"})


def listed(*nodes: NodeId) -> dict[NodeId, str]:
    return {node: AT[node] for node in nodes}


class Process:
    """n1's ``Members`` among fakes that remember what they were told."""

    def __init__(
        self,
        membership: Membership,
        *,
        founders: tuple[NodeId, ...] = (),
        at: str = "a:1",
        log: Log | None = None,
    ) -> None:
        self.node = SimpleNamespace(
            node_id=N1,
            membership=membership,
            membership_since=Index(0),
            leader=N2,
            commit_index=Index(0),
            role=None,
            timing=Timing(),
            log=log or Log(),
        )
        self.replica: Any = SimpleNamespace(node=self.node, last_applied=Index(0))
        self.linked: list[tuple[Mapping[NodeId, str], str]] = []
        self.refusing: str | None = None
        self.asked: list[Change] = []
        self.move_error: ChangeRefused | None = None
        self.ended = 0
        self.members = Members(
            replica=self.replica,
            driver=self,  # type: ignore[arg-type]
            network=self,  # type: ignore[arg-type]
            charter=Charter(Owner("0" * 16, N1), "0" * 16, listed(*founders), listed(N2)),
            peer_address=at,
            on_removed=self._on_removed,
        )

    def set_peers(self, peers: Mapping[NodeId, str], own_address: str) -> None:
        self.linked.append((dict(peers), own_address))

    def refuse(self, detail: str | None) -> None:
        self.refusing = detail

    async def change_members(self, change: Change, *, force: bool, timeout_ms: float) -> Index:
        assert not force
        self.asked.append(change)
        if self.move_error is not None:
            raise self.move_error
        return Index(9)

    def _on_removed(self) -> None:
        self.ended += 1

    def turn(self, membership: Membership, since: int) -> None:
        """A turn in which ``membership`` came into force."""
        self.node.membership, self.node.membership_since = membership, Index(since)
        self.members.turned(SimpleNamespace(membership=membership))  # type: ignore[arg-type]

    async def look_for(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.members.look()
            await advance(250)


@in_virtual_time
async def test_links_follow_the_membership_in_force() -> None:
    process = Process(THREE, founders=(N1, N2, N3))
    process.members.start()
    process.members.turned(SimpleNamespace(membership=None))  # type: ignore[arg-type]
    process.turn(Membership.of("n1", "n2", addresses={"n1": "a:1", "n2": "b:9"}), 5)
    assert process.linked == [(listed(N2, N3), "a:1"), ({N2: "b:9"}, "a:1")]


@in_virtual_time
async def test_one_that_joins_looks_where_it_was_told() -> None:
    process = Process(NOBODY)
    with capture_logs() as lines:
        process.members.start()
    assert process.linked == [({N2: "b:2"}, "")]
    assert [line["run"] for line in lines] == ["raftkv member add n1 a:1"]
    assert not process.members.is_member


@in_virtual_time
async def test_a_removed_node_ends_once_that_is_applied_and_nothing_follows() -> None:
    process = Process(THREE, founders=(N1, N2, N3))
    process.members.start()
    process.turn(WITHOUT_ME, 7)
    await process.look_for(3)  # in force, but not applied: it may be cut again
    assert (process.refusing, process.ended) == (None, 0)
    process.replica.last_applied = Index(7)
    process.members.look()
    assert process.refusing is not None
    assert process.ended == 0
    await process.look_for(0.75)
    assert process.ended == 0
    await process.look_for(1)
    assert process.ended == 1
    await process.look_for(3)
    assert process.ended == 1


@in_virtual_time
async def test_one_that_comes_by_its_removal_while_catching_up_goes_on() -> None:
    process = Process(THREE, founders=(N1, N2, N3))
    process.members.start()
    process.turn(WITHOUT_ME, 7)
    for applied in range(7, 27):  # there is more all the time
        process.replica.last_applied = Index(applied)
        await process.look_for(0.25)
    assert process.ended == 0
    process.turn(THREE, 27)
    await process.look_for(3)
    assert (process.refusing, process.ended) == (None, 0)


@in_virtual_time
async def test_one_that_is_to_be_added_does_not_end() -> None:
    process = Process(NOBODY)
    process.members.start()
    process.turn(WITHOUT_ME, 7)  # of the log that it is sent, before it was added
    process.replica.last_applied = Index(7)
    await process.look_for(3)
    assert (process.refusing, process.ended) == (None, 0)


@in_virtual_time
async def test_one_that_joined_and_was_removed_ends_after_a_restart_too() -> None:
    log = Log()
    for index, membership in ((1, THREE), (2, WITHOUT_ME)):
        log.append(Entry(Index(index), Term(1), EntryKind.CONFIG, 0, encode_membership(membership)))
    process = Process(WITHOUT_ME, log=log)
    process.members.start()
    await process.look_for(3)
    assert process.ended == 1


@in_virtual_time
async def test_one_that_is_listed_elsewhere_asks_for_a_move() -> None:
    process = Process(THREE, founders=(N1, N2, N3), at="new:1")
    process.members.start()
    process.node.leader = None
    await process.look_for(1)
    assert process.asked == []  # there is nobody to ask
    process.node.leader = N2
    process.move_error = ChangeRefused("another change of members is under way")
    with capture_logs() as lines:
        await process.look_for(4)
    assert process.asked[0] == Move(N1, "new:1")
    assert 3 <= len(process.asked) <= 4
    assert len(lines) == 1, "said once"
    process.move_error = None
    process.members.look()
    await settle()
    process.node.membership = Membership.of("n1", "n2", addresses={"n1": "new:1", "n2": "b:2"})
    count = len(process.asked)
    await process.look_for(3)
    assert len(process.asked) == count
    await process.members.stop()


@in_virtual_time
async def test_one_that_does_not_say_where_it_is_asks_for_nothing() -> None:
    process = Process(THREE, founders=(N1, N2, N3), at="")
    process.members.start()
    await process.look_for(2)
    assert process.asked == []


@in_virtual_time
async def test_what_there_is_to_tell() -> None:
    membership = Membership((N1, N2), (N1, N3), (Learner(NodeId("n4"), True, N2),), ((N1, "a:1"),))
    process = Process(membership, founders=(N1, N2, N3))
    process.node.commit_index, process.node.leader = Index(9), N1
    peers = [
        PeerView(N2, "b:2", True, None, {"last_index": 9}, 100.0),
        PeerView(N3, "c:3", True, None, {"last_index": "many"}, 3000.0),
        PeerView(NodeId("n4"), "d:4", False, None, None, None),
    ]
    view = process.members.view({"last_index": 9}, peers)
    rows = [
        (each["id"], each["address"], each["role"], each["match_index"], each["lag"], each["healthy"])
        for each in view["members"]
    ]
    assert rows == [
        ("n1", "a:1", "leader", 9, 0, True),
        ("n2", "b:2", "voter", 9, 0, True),
        ("n3", "c:3", "leaving", None, None, False),
        ("n4", "d:4", "learner", None, None, False),
    ]
    assert (view["members"][3]["promote"], view["members"][3]["replaces"]) == (True, "n2")
    assert (view["joint"], view["committed"], view["leader"]) == (True, True, "n1")


async def test_a_snapshot_says_who_the_members_are(tmp_path: Path) -> None:
    """The entries that said it are gone from the log."""
    async with lone(tmp_path) as node:
        await node.driver.change_members(AddLearner(N2, "b:2", promote=False), force=False, timeout_ms=5000)
        await node.fill(1, 20)
        taken = await node.snapshots.take()
        membership = node.replica.node.membership
        assert membership.learner(N2) == Learner(N2)
        assert taken.meta.index > node.replica.node.membership_since
    async with lone(tmp_path) as node:
        assert node.replica.node.log.boundary.index == taken.meta.index
        assert node.replica.node.membership == membership
