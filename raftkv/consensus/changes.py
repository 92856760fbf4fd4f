"""Changing the members, as the leader does it (section 6; thesis 4.1-4.3).

Voters change by *joint consensus*, whatever the change: an entry C_old,new, under which everything needs
majorities of both, and once that is committed an entry C_new, which the leader appends by itself; also one
that was elected in between. Learners and addresses change with one entry. The rules:

- One change at a time, and none before an entry of the own term is committed: else two memberships could be
  in force that have no majority in common (Ongaro's erratum of 2015).
- None that would leave fewer voters that are heard from than the new membership needs, unless forced.
- A learner that is to vote does so once it has caught up: its last round of catching up took no longer than
  an election timeout (thesis 4.2.1).
- Who is removed is sent to until it has heard that this is committed, for an election timeout at most.
- A leader that is removed leads until that is committed, without counting itself. Then it hands over to
  another, or just ends.

While the lead is handed over nothing is appended, changes neither.
"""

from __future__ import annotations

from raftkv.consensus.core import Core
from raftkv.consensus.election import Election
from raftkv.consensus.membership import (
    Refused,
    changed,
    encode_membership,
    joint,
    left,
    promoted,
)
from raftkv.consensus.messages import ChangeMembers, ChangeMembersReply
from raftkv.consensus.progress import Progress
from raftkv.consensus.quorum import majority
from raftkv.consensus.ready import ChangeReply
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import CatchUp, Farewell, Leader
from raftkv.consensus.transfer import Transfers
from raftkv.consensus.types import EntryKind, Index, Membership, NodeId, Promote, Verdict


class Changes:
    def __init__(
        self, core: Core, election: Election, replication: Replication, transfers: Transfers
    ) -> None:
        self._core = core
        self._election = election
        self._replication = replication
        self._transfers = transfers

    def request(self, leader: Leader, asker: NodeId | None, message: ChangeMembers) -> None:
        """Do what ``asker`` wishes (None: our own client), or not, and answer."""
        core = self._core
        try:
            verdict, index, reason = self._begin(leader, message)
        except Refused as refused:
            verdict, index, reason = Verdict.REFUSED, Index(0), str(refused)
        reply = ChangeMembersReply(message.context, verdict, index, reason)
        if asker is None:
            core.change_replies.append(ChangeReply(core.current_term, reply))
        else:
            core.send(asker, reply)

    def pump(self, leader: Leader) -> None:
        """At a turn's end: what follows by itself on what has happened."""
        self._note_rounds(leader)
        if self._is_committed():
            self._say_farewell(leader)
            if self._core.node_id not in self._core.membership.electorate:
                self._leave(leader)
            else:
                self._go_on(leader)

    # -- beginning a change --------------------------------------------------------------------------------

    def _begin(self, leader: Leader, message: ChangeMembers) -> tuple[Verdict, Index, str]:
        core, change = self._core, message.change
        if hindrance := self._hindrance(leader):
            return Verdict.BUSY, Index(0), hindrance
        target = changed(core.membership, change)
        if target == core.membership:
            return Verdict.DONE, core.commit_index, ""
        if not message.force:
            if isinstance(change, Promote) and not self._has_caught_up(leader, change.node):
                raise Refused(f"{change.node} has not caught up with the leader yet")
            if lack := self._lack(leader, target):
                # NB: whom a new leader hasn't heard yet may be well.
                is_new = core.now_ms - leader.since_ms <= core.timing.election_timeout_min_ms
                return Verdict.BUSY if is_new else Verdict.REFUSED, Index(0), lack
        return Verdict.ACCEPTED, self._append(leader, joint(core.membership, target)), ""

    def _hindrance(self, leader: Leader) -> str | None:
        """Why no change may begin now."""
        core = self._core
        if core.commit_index < leader.term_start:
            return "the leader has only just been elected"
        if core.membership.is_joint or not self._is_committed():
            return "another change of members is under way"
        if leader.transfer is not None:
            return "the lead is being handed over"
        return None

    def _lack(self, leader: Leader, target: Membership) -> str | None:
        """What is wrong with the health of the voters to be, where other nodes are to vote."""
        if target.voters == self._core.membership.voters:
            return None
        unheard = [voter for voter in target.voters if not self._is_heard(leader, voter)]
        needed, heard = majority(len(target.voters)), len(target.voters) - len(unheard)
        if heard >= needed:
            return None
        return (
            f"of the {len(target.voters)} voters that there would be only {heard} are heard from, and "
            f"{needed} are needed to decide anything; not heard from: {', '.join(unheard)}"
        )

    def _is_heard(self, leader: Leader, node: NodeId) -> bool:
        """Whether ``node`` was heard from within an election timeout."""
        core = self._core
        if node == core.node_id:
            return True
        progress = leader.progress[node]
        return progress.answered and core.now_ms - progress.heard_ms <= core.timing.election_timeout_min_ms

    def _append(self, leader: Leader, membership: Membership) -> Index:
        """From here on ``membership`` is in force."""
        core = self._core
        index = self._replication.append(leader, EntryKind.CONFIG, encode_membership(membership))
        for node in membership.members:
            leader.farewells.pop(node, None)
            if node not in leader.progress and node != core.node_id:
                leader.progress[node] = Progress(index, heard_ms=core.now_ms)
        leader.progress = dict(sorted(leader.progress.items()))
        return index

    # -- what follows by itself ----------------------------------------------------------------------------

    def _is_committed(self) -> bool:
        """Whether the membership in force is committed."""
        return self._core.configurations.since <= self._core.commit_index

    def _go_on(self, leader: Leader) -> None:
        """Leave a joint membership; else let the first learner vote that may, if one may."""
        core = self._core
        if core.commit_index < leader.term_start or leader.transfer is not None:
            return
        if core.membership.is_joint:
            self._append(leader, left(core.membership))
            return
        for learner in core.membership.learners:
            target = promoted(core.membership, learner)
            if (
                learner.promote
                and self._has_caught_up(leader, learner.node)
                and self._lack(leader, target) is None
            ):
                self._append(leader, joint(core.membership, target))
                return

    def _note_rounds(self, leader: Leader) -> None:
        core = self._core
        if not (core.membership.learners or leader.learning):
            return
        last, now_ms = core.log.last_index, core.now_ms
        # NB: we may be one ourselves: whom a later membership made a learner may lead until it is committed.
        learners = [each.node for each in core.membership.learners if each.node != core.node_id]
        for node in [node for node in leader.learning if node not in learners]:
            del leader.learning[node]
        for node in learners:
            rounds = leader.learning.setdefault(node, CatchUp(last, now_ms))
            if leader.progress[node].match_index >= rounds.target:
                rounds.was_quick = now_ms - rounds.since_ms <= core.timing.election_timeout_min_ms
                rounds.target, rounds.since_ms = last, now_ms

    def _has_caught_up(self, leader: Leader, node: NodeId) -> bool:
        """Whether its last round was quick, and the one under way isn't too long already."""
        core, rounds = self._core, leader.learning.get(node)
        return (
            rounds is not None
            and rounds.was_quick
            and core.now_ms - rounds.since_ms <= core.timing.election_timeout_min_ms
            and self._is_heard(leader, node)
        )

    def _say_farewell(self, leader: Leader) -> None:
        """Forget those who are no members any more once they have heard it, or had the time to."""
        core, since = self._core, self._core.configurations.since
        for node in [node for node in leader.progress if node not in core.membership.members]:
            progress = leader.progress[node]
            if node not in leader.farewells:
                leader.farewells[node] = Farewell(core.now_ms + core.timing.election_timeout_max_ms)
                progress.commit_wanted = max(progress.commit_wanted, since)
            farewell = leader.farewells[node]
            if farewell.told_round is None and progress.match_index >= since:
                farewell.told_round = leader.round + 1  # that heartbeat says that it is committed
            told = farewell.told_round is not None and progress.acked_round >= farewell.told_round
            if told or core.now_ms >= farewell.until_ms:
                del leader.progress[node], leader.farewells[node]

    def _leave(self, leader: Leader) -> None:
        """We have led others to where they decide without us."""
        core = self._core
        if leader.leaves_at_ms is None:
            leader.leaves_at_ms = core.now_ms + core.timing.election_timeout_min_ms
        if core.now_ms >= leader.leaves_at_ms or not self._transfers.begin(leader, None):
            self._election.follow(core.current_term, None)
