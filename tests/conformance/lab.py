"""The network of the MIT 6.5840 labs round a cluster of the core, in virtual time: servers are disconnected
and connected again without anybody being told, crash and restart; an unreliable network delays, loses and
reorders.

The checks of ``tests/consensus/checks.py`` run after every turn: what the labs check at every apply, and
more.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random

from raftkv.consensus import Envelope, Ready
from raftkv.consensus.messages import AppendEntriesReply, HeartbeatReply, PreVoteReply, RequestVoteReply
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Limits, Timing
from tests.consensus.harness import Cluster, Server

ELECTION_MS = Timing().election_timeout_max_ms
PATIENCE_MS = 10_000.0  # until a cluster that can agree has agreed
REPLIES = (AppendEntriesReply, HeartbeatReply, PreVoteReply, RequestVoteReply)


class Lab(Cluster):
    """n1 to n``size``. ``reliable``: half a millisecond a message; else up to 26 ms, one of ten is lost."""

    def __init__(self, size: int, *, seed: int = 0, reliable: bool = True, limits: Limits = Limits()) -> None:
        self.random = Random(seed)
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.reliable = reliable
        self.reorders_long = False  # two of three replies come 0.2 to 2.2 s late
        self.apart: set[str] = set()
        self.where: dict[bytes, dict[str, int]] = {}  # what was applied, by whom, at which index
        self._on_the_way: list[tuple[float, int, Envelope]] = []
        self._sent = 0
        super().__init__(self.names, seed=seed, limits=limits)
        self.observe = self._note_applied

    def _note_applied(self, server: Server, ready: Ready) -> None:
        for entry in ready.committed:
            self.where.setdefault(entry.data, {})[server.node_id] = entry.index

    # -- the network ---------------------------------------------------------------------------------------

    def send(self, envelope: Envelope) -> None:
        self.on_send(envelope)
        delay_ms = 0.5 if self.reliable else self.random.uniform(0, 26)
        if not self.reliable and self.random.random() < 0.1:
            return
        if self.reorders_long and isinstance(envelope.message, REPLIES) and self.random.random() < 2 / 3:
            delay_ms += 200 + self.random.randrange(1 + self.random.randrange(2000))
        if (envelope.sender, envelope.receiver) not in self.cuts:
            self._sent += 1
            heapq.heappush(self._on_the_way, (self.now_ms + delay_ms, self._sent, envelope))

    def disconnect(self, *names: str) -> None:
        self.apart.update(names)
        self._cut()

    def connect(self, *names: str) -> None:
        """These again; all, if none is named."""
        self.apart.difference_update(names or self.names)
        self._cut()

    def _cut(self) -> None:
        self.heal()
        for name in sorted(self.apart):
            self.isolate(name)

    def crash(self, name: str, written: int = 0) -> None:
        super().crash(name, written)
        for servers in self.where.values():
            servers.pop(name, None)

    def run(
        self, ms: float, until: Callable[[], bool] = lambda: False, latency_ms: float | None = None
    ) -> bool:
        """Let ``ms`` pass, or less if ``until`` holds before; say whether it does."""
        end = self.now_ms + ms
        while not until():
            due = min((s.node.due_ms for s in self.living if s.node), default=end)
            arrival = self._on_the_way[0][0] if self._on_the_way else end
            if min(due, arrival) >= end:
                self.now_ms = end
                return until()
            self.now_ms = max(self.now_ms, min(due, arrival))
            while self._on_the_way and self._on_the_way[0][0] <= self.now_ms:
                self.receive(heapq.heappop(self._on_the_way)[2])
            for server in self.living:
                if server.node is not None and server.node.due_ms <= self.now_ms:
                    self.tick(server.node_id)
        return True

    # -- what the labs ask ---------------------------------------------------------------------------------

    @property
    def connected(self) -> list[Server]:
        return [server for server in self.living if server.node_id not in self.apart]

    @property
    def terms(self) -> set[int]:
        return {server.node.current_term for server in self.connected if server.node}

    def leads(self) -> str | None:
        """Who leads among the connected, in the latest term, if anybody does."""
        leading = [s.node for s in self.connected if s.node and isinstance(s.node.role, Leader)]
        return max(leading, key=lambda node: node.current_term).node_id if leading else None

    def leader(self) -> str:
        """Who leads; soon somebody must."""
        assert self.run(PATIENCE_MS, lambda: self.leads() is not None), "nobody leads"
        name = self.leads()
        assert name is not None
        return name

    def holders(self, data: bytes) -> int:
        """How many have applied ``data``; the dead have applied nothing."""
        return len(self.where.get(data, {}))

    def one(self, data: bytes, servers: int) -> int:
        """Propose ``data`` at whoever leads, again where a leader was lost, until so many have applied it.
        Returns the index that it was first applied at.
        """
        return self.all_of([data], servers)[0]

    def all_of(self, batches: Iterable[bytes], servers: int) -> list[int]:
        """``one`` for several at once."""
        wanted = list(batches)
        deadline_ms = self.now_ms + PATIENCE_MS
        while self.now_ms < deadline_ms:
            name = self.leads()
            missing = [each for each in wanted if not self.holders(each)]
            if name is None or not all(self.propose(name, each) for each in missing):
                self.run(20)
            elif self.run(2000, lambda: all(self.holders(each) >= servers for each in wanted)):
                return [min(self.where[each].values()) for each in wanted]
        raise AssertionError(f"no agreement: {[(each, self.where.get(each)) for each in wanted]}")

    def others(self, *names: str) -> list[str]:
        return [name for name in self.names if name not in names]
