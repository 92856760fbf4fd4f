"""Real replicas with real machines in one thread: time moves when told to, disks are instant, links are
queues.

The faults of consensus itself are tested in ``tests/consensus``; here it is about batches, barriers and
deadlines.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from raftkv.consensus import Envelope, Log, Node
from raftkv.consensus.messages import Message
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Entry, HardState, Limits, Membership, NodeId, Term
from raftkv.kv.commands import Result, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.replica import Replica
from raftkv.waiting import ReplicaLimits


class Server:
    """A replica, its disk, and what its clients were answered: ticket -> results in order of arrival."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = NodeId(name)
        self.hard_state = HardState(Term(0), None)
        self.entries: list[Entry] = []
        self.incarnation = 0
        self.answers: dict[Any, list[Any]] = {}
        self.alive = False
        self.start()

    def start(self) -> None:
        self.incarnation += 1
        self.alive = True
        self.machine = KvMachine()
        node = Node(
            self.name,
            self.cluster.membership,
            uniform=self.cluster.random.uniform,
            now_ms=self.cluster.now_ms,
            hard_state=self.hard_state,
            log=Log(self.entries),
            limits=self.cluster.node_limits,
        )
        self.replica = Replica(
            node, self.machine, incarnation=self.incarnation, limits=self.cluster.replica_limits
        )

    def turn(self) -> None:
        """Until nothing more is to be done without the others."""
        while True:
            self.replica.tick(self.cluster.now_ms)
            ready = self.replica.take_ready()
            if ready.write is not None:
                self.hard_state = ready.write.hard_state or self.hard_state
                if ready.write.entries:
                    self.entries[ready.write.entries[0].index - 1 :] = ready.write.entries
            for envelope in (*ready.messages, *ready.promises):
                self.cluster.send(envelope)
            for ticket, answer in self.replica.apply(ready):
                self.answers.setdefault(ticket, []).append(answer)
            if ready.write is not None:
                self.replica.persisted(ready.mark)
            elif not self.replica.has_more:
                return

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
        self.servers = {name: Server(self, name) for name in self.membership.voters}

    def __getitem__(self, name: str) -> Server:
        return self.servers[NodeId(name)]

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
