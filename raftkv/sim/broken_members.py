"""Broken twins of changing members: each takes one rule out, for those who try whether that is noticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftkv.consensus import changes as changes_module
from raftkv.consensus.changes import Changes
from raftkv.consensus.core import Core
from raftkv.consensus.election import RaftElection
from raftkv.consensus.membership import Configurations
from raftkv.consensus.messages import Envelope, PreVote, RequestVote
from raftkv.consensus.node import Node
from raftkv.consensus.progress import Progress
from raftkv.consensus.quorum import VoteResult, majority_value, tally
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Index, Membership, NodeId, SnapshotMeta

Patch = tuple[Any, str, Any]


# -- which membership is in force ---------------------------------------------------------------------------


def in_force_when_committed() -> Patch:
    """A membership counts from its commit on, not from when it is in the log."""

    def membership(self: Core) -> Membership:
        known = self.configurations
        return known.at(min(known.since, max(self.commit_index, known.first)))

    return Core, "membership", property(membership)


def never_rolled_back() -> Patch:
    """A cut log's membership stays in force."""
    return Configurations, "cut", lambda self, index: None


def not_in_snapshots() -> Patch:
    """Who installs a snapshot goes on with the membership that it had."""
    original = Core.install

    def install(self: Core, boundary: SnapshotMeta, membership: Membership) -> None:
        original(self, boundary, self.membership)

    return Core, "install", install


# -- majorities --------------------------------------------------------------------------------------------


def _agreed_by(voters: Callable[[Core], Sequence[NodeId]]) -> Patch:
    def agreed(self: Replication, leader: Leader, own: Any, of: Callable[[Progress], Any]) -> Any:
        values = {peer: of(progress) for peer, progress in leader.progress.items()}
        values[self._core.node_id] = own
        return majority_value([values[voter] for voter in voters(self._core)])

    return Replication, "agreed", agreed


def decided_by_the_union() -> Patch:
    """One majority of both halves together commits, and confirms reads."""
    return _agreed_by(lambda core: core.membership.electorate)


def decided_by_those_to_come() -> Patch:
    """While it is joint, a majority of those who will vote is enough."""
    return _agreed_by(lambda core: core.membership.voters)


def elected_by_the_union() -> Patch:
    def result(self: RaftElection, votes: dict[NodeId, bool]) -> VoteResult:
        return tally(self._core.membership.electorate, votes)

    return RaftElection, "_result", result


def learners_counted() -> Patch:
    return _agreed_by(lambda core: core.membership.members)


def removed_leader_counted() -> Patch:
    """A leader counts itself though it doesn't vote any more."""
    return _agreed_by(lambda core: sorted({*core.membership.voters, core.node_id}))


# -- when a change may begin, and how -----------------------------------------------------------------------


def joint_skipped() -> Patch:
    """Whatever the change, the new membership follows on the old one in one step."""
    return changes_module, "joint", lambda current, target: target


def before_an_own_commit() -> Patch:
    """A new leader changes members before it has committed anything (Ongaro 2015)."""
    original = Changes._hindrance

    def hindrance(self: Changes, leader: Leader) -> str | None:
        kept, leader.term_start = leader.term_start, Index(0)
        try:
            return original(self, leader)
        finally:
            leader.term_start = kept

    return Changes, "_hindrance", hindrance


def two_at_once() -> Patch:
    """A change begins while the one before isn't committed."""

    def hindrance(self: Changes, leader: Leader) -> str | None:
        core = self._core
        if core.commit_index < leader.term_start or core.membership.is_joint or leader.transfer is not None:
            return "not now"
        return None

    return Changes, "_hindrance", hindrance


def unhealthy_taken() -> Patch:
    """Whether the voters to be are heard from isn't looked at."""
    return Changes, "_lack", lambda self, leader, target: None


def promoted_at_once() -> Patch:
    """A learner votes before it has caught up."""
    return Changes, "_has_caught_up", lambda self, leader, node: True


def left_by_its_own_leader_only() -> Patch:
    """A joint membership that a leader has from the one before it stays."""
    original = Changes._go_on

    def go_on(self: Changes, leader: Leader) -> None:
        if self._core.configurations.since >= leader.term_start:
            original(self, leader)

    return Changes, "_go_on", go_on


# -- those who go, and those who come -----------------------------------------------------------------------


def removed_leader_stays() -> Patch:
    return Changes, "_leave", lambda self, leader: None


def removed_are_forgotten_at_once() -> Patch:
    """Nothing is sent to who is no member any more."""
    original = Changes._append

    def append(self: Changes, leader: Leader, membership: Membership) -> Index:
        index = original(self, leader, membership)
        for node in [each for each in leader.progress if each not in membership.members]:
            del leader.progress[node]
        return index

    return Changes, "_append", append


def removed_do_not_stand() -> Patch:
    """Not even while others may still need their votes."""
    return Core, "may_stand", property(lambda self: self.node_id in self.membership.electorate)


def learners_stand() -> Patch:
    return Core, "may_stand", property(lambda self: True)


def only_members_are_heard() -> Patch:
    """Candidates that aren't in one's own membership, which may be old, get no votes."""
    original = Node.step

    def step(self: Node, envelope: Envelope) -> None:
        is_candidate = isinstance(envelope.message, PreVote | RequestVote)
        if not is_candidate or envelope.sender in self.membership.electorate:
            original(self, envelope)

    return Node, "step", step


ALL: dict[str, Patch] = {
    "a membership counts when it is committed": in_force_when_committed(),
    "a cut membership stays in force": never_rolled_back(),
    "a snapshot says nothing of the members": not_in_snapshots(),
    "committed by a majority of both halves together": decided_by_the_union(),
    "committed by those to come alone": decided_by_those_to_come(),
    "elected by a majority of both halves together": elected_by_the_union(),
    "learners counted": learners_counted(),
    "a removed leader counts itself": removed_leader_counted(),
    "voters changed in one step": joint_skipped(),
    "members changed before a commit of the own term": before_an_own_commit(),
    "two changes of members at once": two_at_once(),
    "a change that loses the majority taken": unhealthy_taken(),
    "a learner votes before it has caught up": promoted_at_once(),
    "joint memberships left by their own leader only": left_by_its_own_leader_only(),
    "a removed leader stays": removed_leader_stays(),
    "removed members are told nothing": removed_are_forgotten_at_once(),
    "removed members never stand": removed_do_not_stand(),
    "learners stand for election": learners_stand(),
    "only members' candidates are heard": only_members_are_heard(),
}

# Those that the simulator notices, too; all of them are missed by scripts of the core.
NOTICED = (
    "joint memberships left by their own leader only",
    "a membership counts when it is committed",
    "a cut membership stays in force",
    "a snapshot says nothing of the members",
    "committed by a majority of both halves together",
    "committed by those to come alone",
    "elected by a majority of both halves together",
    "learners counted",
    "a removed leader counts itself",
    "members changed before a commit of the own term",
    "voters changed in one step",
    "two changes of members at once",
    "a removed leader stays",
)
