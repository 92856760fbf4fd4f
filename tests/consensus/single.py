"""One node under a microscope: the test plays its peers, its clock and (instant) disk."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.consensus import Envelope, Log, Node, Ready
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesReply,
    HeartbeatReply,
    Message,
    PreVoteReply,
    RequestVoteReply,
)
from raftkv.consensus.roles import Candidate, Leader, PreCandidate
from raftkv.consensus.types import (
    Entry,
    GroupId,
    HardState,
    Index,
    Limits,
    Membership,
    NodeId,
    Term,
    Timing,
)
from tests.consensus.harness import entries

ME = NodeId("n1")


class Single:
    """``n1`` of ``size`` nodes n1, n2 ...; ``log`` gives the terms of its entries, from index 1.

    Every input returns what left the node because of it; ``ready`` is the last bundle.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        term: int = 0,
        vote: str | None = None,
        log: Sequence[int] = (),
        limits: Limits = Limits(),
        timing: Timing = Timing(),
        instant_disk: bool = True,
    ) -> None:
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.peers = self.names[1:]
        self.instant_disk = instant_disk
        self.unwritten: list[Ready] = []
        self.applied: list[Entry] = []
        self.node = Node(
            ME,
            Membership.of(*self.names),
            uniform=lambda low, high: low,
            now_ms=0.0,
            hard_state=HardState(Term(max([term, *log])), NodeId(vote) if vote else None),
            log=Log(entries(*log)),
            timing=timing,
            limits=limits,
        )
        self.now_ms = 0.0
        self.ready = self.node.take_ready()

    def end_turn(self) -> list[Envelope]:
        ready = self.ready = self.node.take_ready()
        self.applied += ready.committed
        sent = list(ready.messages)
        if self.instant_disk:
            sent += ready.promises
            if ready.write is not None:
                self.node.persisted(ready.mark)
                sent += self.end_turn()
                self.ready = ready
        elif ready.write is not None or self.unwritten:
            self.unwritten.append(ready)
        else:
            sent += ready.promises
        return sent

    def write_done(self) -> list[Envelope]:
        """The oldest write (or promise without one) is durable."""
        ready = self.unwritten.pop(0)
        if ready.write is not None:
            self.node.persisted(ready.mark)
        return [*ready.promises, *self.end_turn()]

    def receive(self, sender: str, message: Message, term: int | None = None) -> list[Envelope]:
        at = self.node.current_term if term is None else Term(term)
        self.node.step(Envelope(GroupId(0), NodeId(sender), ME, at, message))
        return self.end_turn()

    def wait(self, ms: float) -> list[Envelope]:
        self.now_ms += ms
        self.node.tick(self.now_ms)
        return self.end_turn()

    def time_out(self) -> list[Envelope]:
        """The election timeout passes."""
        self.now_ms = max(self.now_ms, self.node.due_ms)
        return self.wait(0)

    def stand(self) -> list[Envelope]:
        """Become a candidate of the next term, by the PreVotes of all."""
        if self.peers:
            self.time_out()
            assert isinstance(self.node.role, PreCandidate)
        for peer in self.peers[: len(self.names) // 2 - 1]:
            self.grant_pre_vote(peer)
        sent = self.grant_pre_vote(self.peers[-1]) if self.peers else self.time_out()
        assert isinstance(self.node.role, Candidate | Leader)
        return sent

    def grant_pre_vote(self, peer: str) -> list[Envelope]:
        return self.receive(peer, PreVoteReply(Term(self.node.current_term + 1), granted=True))

    def lead(self) -> list[Envelope]:
        """Become the leader of the next term; returns what left with the election's last vote."""
        sent = self.stand()
        for peer in self.peers[: len(self.names) // 2]:
            sent = self.receive(peer, RequestVoteReply(granted=True))
        assert isinstance(self.node.role, Leader)
        return sent

    def acknowledge(self, peer: str, match: int) -> list[Envelope]:
        return self.receive(peer, AppendEntriesReply(Index(match)))

    def hear_all(self) -> None:
        """Every peer answers a heartbeat."""
        assert isinstance(self.node.role, Leader)
        for peer in self.peers:
            self.receive(peer, HeartbeatReply(0))

    @property
    def leader_role(self) -> Leader:
        assert isinstance(self.node.role, Leader)
        return self.node.role

    @property
    def terms(self) -> list[int]:
        return [each.term for each in self.node.log.slice(Index(1), 1 << 62)]


def append(prev: int, prev_term: int, new: Sequence[Entry] = (), commit: int = 0) -> AppendEntries:
    return AppendEntries(Index(prev), Term(prev_term), tuple(new), Index(commit))


def messages(sent: list[Envelope], kind: type[Message] | type, to: str | None = None) -> list[Message]:
    return [each.message for each in sent if isinstance(each.message, kind) and to in (None, each.receiver)]
