"""A driver with a real replica of ``n1``, a disk that completes when told, and links that go to a list.

The other nodes are played by the test, which says what their messages are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from raftkv.consensus import Log, Node
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    HeartbeatReply,
    Message,
    PreVoteReply,
    RequestVoteReply,
)
from raftkv.consensus.messages import Heartbeat as HeartbeatMessage
from raftkv.consensus.ready import Ready
from raftkv.consensus.types import Entry, EntryKind, GroupId, Index, Membership, NodeId, Term, Write
from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.replica import Replica
from raftkv.server.driver import Driver
from tests.server.virtual_time import advance, settle

N1 = NodeId("n1")
Heartbeat = HeartbeatMessage


class CountingReplica(Replica):
    turns = 0

    def take_ready(self) -> Ready:
        self.turns += 1
        return super().take_ready()


class Rig:
    """``events`` has, in order, what the driver asked of its disk and links: "write", or the message sent."""

    def __init__(self, *voters: str) -> None:
        loop = asyncio.get_running_loop()
        self.events: list[Any] = []
        self.fatal: list[BaseException] = []
        self.under_way: deque[tuple[Write, Callable[[], None]]] = deque()
        self.machine = KvMachine()
        node = Node(
            N1,
            Membership.of(*voters),
            uniform=lambda least, _: least,
            now_ms=loop.time() * 1000,
            log=Log(),
        )
        self.replica = CountingReplica(node, self.machine, incarnation=1)
        self.driver = Driver(self.replica, self, self, on_fatal=self.fatal.append)
        self.driver.start()

    # -- ports.Storage and ports.Transport -------------------------------------------------------------------

    def write(self, write: Write, then: Callable[[], None]) -> None:
        self.events.append("write")
        self.under_way.append((write, then))

    def send(self, envelopes: Sequence[Envelope]) -> None:
        self.events += (envelope.message for envelope in envelopes)

    # -- what the test makes happen --------------------------------------------------------------------------

    async def complete(self, writes: int = 1) -> None:
        """The oldest ``writes`` under way are durable."""
        for _ in range(writes):
            self.under_way.popleft()[1]()
        await settle()

    async def hear(self, sender: str, *messages: Message, term: int = 1) -> None:
        envelopes = [Envelope(GroupId(0), NodeId(sender), N1, Term(term), message) for message in messages]
        self.driver.on_envelopes(envelopes)
        await settle()

    async def lead(self) -> None:
        """Become the leader of term 1 among three, with everything durable and the no-op committed."""
        await advance(301)
        await self.hear("n2", PreVoteReply(Term(1), granted=True), term=0)
        await self.complete()
        await self.hear("n2", RequestVoteReply(granted=True))
        await self.complete()
        for follower in ("n2", "n3"):
            await self.hear(follower, AppendEntriesReply(Index(1)), HeartbeatReply(1))
        assert self.driver_leads
        self.events.clear()

    @property
    def driver_leads(self) -> bool:
        return self.replica.node.leader == N1

    def put(self, key: bytes = b"k", timeout_ms: float = 5000) -> asyncio.Future[Any]:
        return self.driver.propose(encode_put(key, b"v"), timeout_ms)

    # -- what the test looks at ------------------------------------------------------------------------------

    def sent(self, *kinds: type[Message]) -> list[Message]:
        return [event for event in self.events if isinstance(event, kinds)]


def entry(index: int, term: int = 1) -> Entry:
    return Entry(Index(index), Term(term), EntryKind.NOOP, 0, b"")


def append(first: int, last: int, *, commit: int = 0) -> AppendEntries:
    """Entries ``first`` to ``last`` of term 1, behind others of term 1."""
    entries = tuple(entry(index) for index in range(first, last + 1))
    return AppendEntries(Index(first - 1), Term(int(first > 1)), entries, Index(commit))


def outcome(ticket: asyncio.Future[Any]) -> Any:
    """What ``ticket`` was answered, or None while it waits."""
    if not ticket.done():
        return None
    return ticket.exception() or ticket.result()
