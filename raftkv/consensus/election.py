"""How a leader is chosen: PreVote, then the paper's election (sections 5.2, 5.4.1; thesis 4.2.3, 9.6).

``Election`` is what the node needs of any way to choose; ``RaftElection`` is the one there is. It owns the
role's changes; the node decides when. Additions to the paper, written down in ``docs/guarantees.md``:

- *Hunting.* When its link to the leader breaks, a follower asks for PreVotes within milliseconds instead of
  waiting for the election timeout, and asks again every few milliseconds while it hears of no leader: voters
  whose own notice is late refuse first and grant then. Followers begin one after the other, in the order of
  their ids, so that the first one has usually won before the second begins. A broken link is a hint, never a
  proof: votes decide.
- Hunting must not outrun the disks, which decide how long an election takes: whoever voted waits for its
  candidate before it helps another, and a candidate gives its voters the time that its own vote took.
- A voter that has heard its leader lately refuses (the lease of thesis 4.2.3), so a partial cut deposes
  nobody. With leases for reads it is *bound* besides, and then it neither votes nor stands, whatever becomes
  of its link: the hunt begins when it is free (``lease.py``).
"""

from __future__ import annotations

from typing import Protocol

from raftkv.consensus.core import Core
from raftkv.consensus.messages import PreVote, PreVoteReply, RequestVote, RequestVoteReply
from raftkv.consensus.progress import Progress
from raftkv.consensus.quorum import VoteResult, joint_result, tally
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import Index, NodeId, Term


class Election(Protocol):
    """What ``Node`` needs of a way to choose leaders. Those that return a bool say whether this node has just
    won.
    """

    def tick(self) -> None: ...
    def leader_lost(self) -> None: ...
    def on_pre_vote(self, sender: NodeId, request: PreVote) -> None: ...
    def on_pre_vote_reply(self, sender: NodeId, reply: PreVoteReply) -> None: ...
    def on_request_vote(self, sender: NodeId, request: RequestVote) -> None: ...
    def on_request_vote_reply(self, sender: NodeId, reply: RequestVoteReply) -> bool: ...
    def own_vote_durable(self) -> bool: ...
    def stand_now(self) -> None: ...
    def follow(self, term: Term, leader: NodeId | None) -> None: ...
    def hear_leader(self, leader: NodeId) -> Follower: ...
    def refuse_pre_vote(self, sender: NodeId, request: PreVote) -> None: ...


class RaftElection:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._hunting_until_ms = float("-inf")
        alone = core.membership.electorate == (core.node_id,)
        core.role = Follower(None, core.now_ms if alone else self._timeout())

    # -- becoming ------------------------------------------------------------------------------------------

    def follow(self, term: Term, leader: NodeId | None) -> None:
        """Become (or stay) a follower of ``leader`` in ``term``. The vote is forgotten only with a new term
        (E4).
        """
        core = self._core
        if term > core.current_term:
            core.current_term, core.voted_for = term, None
        # NB: a new term is somebody's election, which needs a few disk writes: the hunt waits for it.
        core.role = Follower(leader, self._timeout() if leader else self._retry(10, 20))

    def hear_leader(self, leader: NodeId) -> Follower:
        """The current term's leader spoke: follow it, and renew its lease on our loyalty."""
        core = self._core
        role = core.role
        if not isinstance(role, Follower) or (role.leader != leader and role.leader is not None):
            self.follow(core.current_term, leader)
        role = core.role
        assert isinstance(role, Follower)
        role.leader, role.elects = leader, None
        role.election_due_ms = self._timeout()
        role.lease_until_ms = core.now_ms + core.timing.election_timeout_min_ms
        self._hunting_until_ms = float("-inf")
        return role

    def leader_lost(self) -> None:
        """The link to our leader broke: its lease ends here, and the hunt begins in the order of ids."""
        core = self._core
        assert isinstance(core.role, Follower)
        successors = [voter for voter in core.membership.electorate if voter != core.role.leader]
        if core.node_id not in successors:
            core.role = Follower(None, self._timeout())
            return
        rank = successors.index(core.node_id)
        step = core.timing.hunt_step_ms
        begin_ms = max(core.now_ms, core.bound_until_ms)  # NB: a broken link frees nobody from its word
        self._hunting_until_ms = begin_ms + core.timing.election_timeout_min_ms
        core.role = Follower(None, begin_ms + rank * step + core.uniform(0, step / 4))

    def _ask_for_pre_votes(self) -> None:
        core = self._core
        core.role = PreCandidate(self._retry(1, 2), {core.node_id: True})
        log = core.log
        for peer in core.peers:
            core.send(peer, PreVote(Term(core.current_term + 1), log.last_index, log.last_term))
        self._count_pre_votes()

    def stand_now(self) -> None:
        """The leader of our term hands over to us: no PreVotes, and its voters may be disloyal to it."""
        core = self._core
        if core.node_id in core.membership.electorate and not isinstance(core.role, Leader):
            self._stand(transfer=True)

    def _stand(self, *, transfer: bool = False) -> None:
        """Become a candidate. NB: its own vote, too, counts only once it is durable."""
        core = self._core
        core.current_term = Term(core.current_term + 1)
        core.voted_for = core.node_id
        core.role = Candidate(self._timeout(), {}, since_ms=core.now_ms)
        for peer in core.peers:
            core.promise(peer, RequestVote(core.log.last_index, core.log.last_term, transfer))

    def _lead(self) -> None:
        core = self._core
        next_index = Index(core.log.last_index + 1)
        # NB: those too who were members in what we don't know to be over: they may have to hear that it is.
        members = {
            node for each in core.configurations.from_index(core.commit_index) for node in each.members
        }
        core.role = Leader(
            progress={
                peer: Progress(next_index, heard_ms=core.now_ms) for peer in sorted(members - {core.node_id})
            },
            term_start=next_index,
            heartbeat_due_ms=core.now_ms,
            since_ms=core.now_ms,
            time_base_ms=core.log.last_time_ms,
            settled_index=core.log.last_index,
        )

    # -- time ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """When this node has waited long enough for a leader, or for votes, ask for PreVotes (again)."""
        core = self._core
        role = core.role
        if isinstance(role, Leader) or core.now_ms < role.election_due_ms:
            return
        if not core.may_stand:
            core.role = Follower(None, self._timeout())
        elif core.is_bound:
            role.election_due_ms = core.bound_until_ms
        elif core.vote_pending:
            # NB: while our own disk is busy with this term's vote, another term would only queue behind it: a
            # disk slower than the election timeout would never elect anybody.
            role.election_due_ms = self._retry(1, 2)
        else:
            self._ask_for_pre_votes()

    def _timeout(self) -> float:
        timing = self._core.timing
        return self._core.now_ms + self._core.uniform(
            timing.election_timeout_min_ms, timing.election_timeout_max_ms
        )

    def _retry(self, low: float, high: float) -> float:
        """When to ask again: after a few hunt steps while hunting, else after an election timeout."""
        core = self._core
        if core.now_ms >= self._hunting_until_ms:
            return self._timeout()
        return core.now_ms + core.uniform(low, high) * core.timing.hunt_step_ms

    # -- PreVote -------------------------------------------------------------------------------------------

    def on_pre_vote(self, sender: NodeId, request: PreVote) -> None:
        """Would this node vote for ``sender``? Changes nothing here, and promises nothing."""
        core = self._core
        granted = (
            request.next_term > core.current_term
            and core.log.is_up_to_date(request.last_log_index, request.last_log_term)
            and not self._awaits_another(sender)
        )
        core.send(sender, PreVoteReply(request.next_term, granted))

    def _awaits_another(self, sender: NodeId) -> bool:
        """Whether an election that has our vote may still be under way: a second one would only split it.

        NB: disks decide how long an election takes, and they may be far slower than hunt steps.
        """
        core = self._core
        role = core.role
        if isinstance(role, Follower):
            return role.elects not in (None, sender) and core.now_ms < role.election_due_ms
        return isinstance(role, Candidate) and core.now_ms < role.election_due_ms

    def refuse_pre_vote(self, sender: NodeId, request: PreVote) -> None:
        self._core.send(sender, PreVoteReply(request.next_term, granted=False))

    def on_pre_vote_reply(self, sender: NodeId, reply: PreVoteReply) -> None:
        core = self._core
        if not isinstance(core.role, PreCandidate) or reply.next_term != core.current_term + 1:
            return
        # NB: a grant outlives a refusal of the same hunt, and is not taken back by a late one.
        core.role.votes[sender] = reply.granted or core.role.votes.get(sender, False)
        self._count_pre_votes()

    def _count_pre_votes(self) -> None:
        core = self._core
        assert isinstance(core.role, PreCandidate)
        if self._result(core.role.votes) is VoteResult.WON:
            self._stand()

    def _result(self, votes: dict[NodeId, bool]) -> VoteResult:
        return joint_result(tally(half, votes) for half in self._core.membership.halves)

    # -- the vote ------------------------------------------------------------------------------------------

    def on_request_vote(self, sender: NodeId, request: RequestVote) -> None:
        """Grant at most one vote a term, first come first served, to a log with all of ours (5.2, 5.4.1)."""
        core = self._core
        # NB: a pre-candidate has voted for nobody yet; a candidate and a leader have voted for themselves.
        granted = core.voted_for in (None, sender) and core.log.is_up_to_date(
            request.last_log_index, request.last_log_term
        )
        if not granted:
            core.send(sender, RequestVoteReply(granted=False))
            return
        core.voted_for = sender
        if not isinstance(core.role, Follower):
            core.role = Follower(None, float("inf"))
        core.role.election_due_ms = self._timeout()
        core.role.elects = sender
        self._hunting_until_ms = float("-inf")
        core.promise(sender, RequestVoteReply(granted=True))

    def on_request_vote_reply(self, sender: NodeId, reply: RequestVoteReply) -> bool:
        core = self._core
        if not isinstance(core.role, Candidate):
            return False
        core.role.votes.setdefault(sender, reply.granted)
        return self._count_votes()

    def own_vote_durable(self) -> bool:
        """This candidate's term and vote are on its own disk: it may count itself now."""
        core = self._core
        if not isinstance(core.role, Candidate):
            return False
        core.role.votes[core.node_id] = True
        # The requests leave now; the voters' disks may need as long as ours did.
        took_ms = core.now_ms - core.role.since_ms
        core.role.election_due_ms = self._retry(5, 10) + 2 * took_ms
        return self._count_votes()

    def _count_votes(self) -> bool:
        core = self._core
        assert isinstance(core.role, Candidate)
        result = self._result(core.role.votes)
        if result is VoteResult.WON:
            self._lead()
        elif result is VoteResult.LOST:
            self.follow(core.current_term, None)
        return result is VoteResult.WON
