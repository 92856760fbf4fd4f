"""Real replicas with real machines in one thread: time moves when told to, disks are instant, links are
queues.

The faults of consensus itself are tested in ``tests/consensus``; here it is about batches, barriers and
deadlines.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from raftkv.consensus import Envelope, Log, Node
from raftkv.consensus.messages import Message
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import (
    NO_SNAPSHOT,
    NOBODY,
    Entry,
    HardState,
    Limits,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
)
from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine, Restoring
from raftkv.kv.results import Result
from raftkv.replica import Replica
from raftkv.waiting import ReplicaLimits

Snapshot = tuple[SnapshotMeta, tuple[bytes, ...]]


def feed(restoring: Restoring, chunks: Iterable[bytes]) -> Restoring:
    for chunk in chunks:
        restoring.feed(chunk)
    return restoring


class Server:
    """A replica, its disk, and what its clients were answered: ticket -> results in order of arrival."""

    def __init__(self, cluster: Cluster, name: str, membership: Membership) -> None:
        """``membership``: what it is founded with."""
        self.cluster = cluster
        self.membership = membership  # or what its snapshot says
        self.name = NodeId(name)
        self.hard_state = HardState(Term(0), None)
        self.entries: list[Entry] = []
        self.boundary = NO_SNAPSHOT
        self.snapshot: Snapshot = (NO_SNAPSHOT, ())
        self.incarnation = 0
        self.answers: dict[Any, list[Any]] = {}
        self.alive = False
        self.start()

    def start(self) -> None:
        self.incarnation += 1
        self.alive = True
        self.machine = KvMachine()
        meta, chunks = self.snapshot
        if chunks:
            feed(self.machine.restorer(), chunks).finish()
        node = Node(
            self.name,
            self.membership,
            uniform=self.cluster.random.uniform,
            now_ms=self.cluster.now_ms,
            hard_state=self.hard_state,
            log=Log(self.entries, self.boundary),
            applied=meta.index,
            limits=self.cluster.node_limits,
        )
        self.replica = Replica(
            node,
            self.machine,
            incarnation=self.incarnation,
            applied=meta.index,
            limits=self.cluster.replica_limits,
        )

    def turn(self) -> None:
        """Until nothing more is to be done without the others."""
        while True:
            self.replica.tick(self.cluster.now_ms)
            ready = self.replica.take_ready()
            if ready.write is not None:
                self.hard_state = ready.write.hard_state or self.hard_state
                if ready.write.boundary is not None:
                    assert ready.write.boundary == self.snapshot[0], "the snapshot wasn't durable"
                    self.boundary, self.entries = ready.write.boundary, []
                if ready.write.entries:
                    first = ready.write.entries[0].index - self.boundary.index - 1
                    self.entries[first:] = ready.write.entries
            for envelope in (*ready.messages, *ready.promises):
                self.cluster.send(envelope)
            self.cluster.snapshots_due += [(self.name, peer) for peer in ready.snapshots_for]
            for ticket, answer in self.replica.apply(ready):
                self.answers.setdefault(ticket, []).append(answer)
            if ready.write is not None:
                self.replica.persisted(ready.mark)
            elif not self.replica.has_more:
                return

    def take_snapshot(self) -> None:
        """Make a snapshot durable, and forget the log that it covers, here and on the disk."""
        meta, chunks = self.replica.capture()
        self.snapshot = meta, tuple(chunks)
        self.membership = self.replica.node.membership_at(meta.index)
        self.replica.compact(meta.index)
        boundary = self.replica.node.log.boundary
        self.entries = self.entries[boundary.index - self.boundary.index :]
        self.boundary = boundary

    def receive_snapshot(self, sender: Server) -> None:
        restoring = feed(self.replica.restorer(), sender.snapshot[1])
        self.snapshot, self.membership = sender.snapshot, sender.membership
        term = sender.replica.node.current_term
        self.replica.install(sender.name, term, sender.snapshot[0], sender.membership, restoring)
        self.turn()
        sender.replica.snapshot_ended(self.name)

    def put(self, key: bytes, value: bytes = b"v", *, ticket: Any = None, timeout_ms: float = 5000) -> None:
        deadline_ms = self.cluster.now_ms + timeout_ms
        self.replica.propose(encode_put(key, value), key if ticket is None else ticket, deadline_ms)

    def barrier(self, ticket: Any, timeout_ms: float = 5000) -> None:
        self.replica.barrier(ticket, self.cluster.now_ms + timeout_ms)

    def answer(self, ticket: Any) -> Result | Exception | None:
        """The one answer that ``ticket`` got."""
        assert len(self.answers.get(ticket, [])) == 1, f"{ticket!r} got {self.answers.get(ticket)}"
        return self.answers[ticket][0]  # type: ignore[no-any-return]


class Cluster:
    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        limits: ReplicaLimits = ReplicaLimits(),
        node_limits: Limits = Limits(),
    ) -> None:
        self.random = random.Random(seed)
        self.now_ms = 0.0
        self.replica_limits = limits
        self.node_limits = node_limits
        self.membership = Membership.of(*(f"n{i}" for i in range(1, size + 1)))
        self.queue: deque[Envelope] = deque()
        self.drop: set[type[Message]] = set()  # kinds of messages that get lost
        self.cut: set[str] = set()  # nodes that nobody reaches
        self.snapshots_due: list[tuple[NodeId, NodeId]] = []  # (who has it, who needs it)
        self.servers = {name: Server(self, name, self.membership) for name in self.membership.voters}

    def __getitem__(self, name: str) -> Server:
        return self.servers[NodeId(name)]

    def join(self, name: str) -> Server:
        """Start a server that knows nobody, to be made a member."""
        server = self.servers[NodeId(name)] = Server(self, name, NOBODY)
        return server

    @property
    def living(self) -> list[Server]:
        return [server for server in self.servers.values() if server.alive]

    @property
    def leader(self) -> Server:
        leaders = [
            s for s in self.living if isinstance(s.replica.node.role, Leader) and s.name not in self.cut
        ]
        return max(leaders, key=lambda server: server.replica.node.current_term)

    @property
    def followers(self) -> list[Server]:
        return [server for server in self.living if server is not self.leader and server.name not in self.cut]

    def send(self, envelope: Envelope) -> None:
        if type(envelope.message) not in self.drop and not {envelope.sender, envelope.receiver} & self.cut:
            self.queue.append(envelope)

    def settle(self) -> None:
        """Let every living server have its turn, and deliver, until nothing is in flight. No time passes."""
        for server in self.living:
            server.turn()
        while self.queue:
            envelope = self.queue.popleft()
            server = self.servers[envelope.receiver]
            if server.alive:
                server.replica.step(envelope)
                server.turn()

    def advance(self, ms: float, step_ms: float = 2.0) -> None:
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms += step_ms
            self.settle()

    def elect(self) -> Server:
        self.advance(1500)
        return self.leader

    def kill(self, server: Server) -> None:
        """As kill -9: its links break at once, what it had in flight is lost, its disk stays."""
        server.alive = False
        self.queue = deque(e for e in self.queue if server.name not in (e.sender, e.receiver))
        for other in self.living:
            other.replica.peer_lost(server.name)
