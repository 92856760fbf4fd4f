"""Rules that others learned the hard way and that no other test of ours holds (docs/conformance.md)."""

from __future__ import annotations

import heapq

import pytest

from raftkv.consensus import Envelope, InvariantBroken
from raftkv.consensus.messages import AppendEntries, Heartbeat
from raftkv.consensus.types import Index
from tests.conformance.lab import Lab
from tests.consensus.single import Single

SLOW_BYTES_PER_MS = 2_000
SECONDS = 4


def test_a_member_whose_disk_was_emptied_stops() -> None:
    """S3: it comes back under its old id, and the leader still counts on what it acknowledged."""
    single = Single(log=[])
    with pytest.raises(InvariantBroken, match="data directory was lost or replaced"):
        single.receive("n2", Heartbeat(Index(3), Index(2), 1), term=1)


def test_a_member_that_kept_what_it_acknowledged_goes_on() -> None:
    single = Single(log=[1, 1])
    single.receive("n2", Heartbeat(Index(3), Index(2), 1), term=1)
    assert single.node.commit_index == 2


class SlowLinks(Lab):
    """Each link carries ``SLOW_BYTES_PER_MS`` of entries, one message after the other."""

    def __init__(self, size: int) -> None:
        self.free_ms: dict[tuple[str, str], float] = {}
        super().__init__(size)

    def send(self, envelope: Envelope) -> None:
        self.on_send(envelope)
        link = (envelope.sender, envelope.receiver)
        message = envelope.message
        size = sum(len(each.data) for each in message.entries) if isinstance(message, AppendEntries) else 0
        arrival_ms = max(self.now_ms, self.free_ms.get(link, 0.0)) + 0.5 + size / SLOW_BYTES_PER_MS
        self.free_ms[link] = arrival_ms
        self._sent += 1
        heapq.heappush(self._on_the_way, (arrival_ms, self._sent, envelope))


def test_traffic_does_not_starve_heartbeats() -> None:
    """E13: as much as the leader takes, over links that need seconds for what is in flight: it still leads.

    A follower hears of it at least with every AppendEntries, which is small enough to come in time.
    """
    lab = SlowLinks(3)
    leader = lab.leader()
    lab.run(100)
    (term,) = lab.terms
    taken = 0
    for _ in range(SECONDS * 100):
        while lab.propose(leader, b"x" * 32_768):
            taken += 1
            if taken % 64 == 0:
                break
        lab.run(10)
        assert lab.leaders == [leader]
    assert lab.terms == {term}
    assert lab.servers[leader].node is not None
    assert lab.node(leader).commit_index > SECONDS * SLOW_BYTES_PER_MS * 1000 / 32_768 / 2, "links were busy"
