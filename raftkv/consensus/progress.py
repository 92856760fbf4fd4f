"""A follower as its leader sees it.

Three modes. *Probe*: where the logs agree isn't known; one AppendEntries at a time, the next after its answer
(or, empty, with a heartbeat). *Replicate*: they agree up to ``match_index`` and entries are pipelined ahead
of the answers, within a window bounded in messages and bytes (thesis 10.2.1). *Snapshot*: what it lacks is
gone from our log; a snapshot is on its way, or will be with the next heartbeat, and entries wait for it.

Invariants: ``match_index`` never decreases within a term; ``next_index > match_index``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from raftkv.consensus.types import Entry, Index


class Mode(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    next_index: Index  # the first entry not yet sent
    heard_ms: float  # when anything of this term last came from it; for CheckQuorum
    answered: bool = False  # whether anything of this term did, since its link was last lost
    match_index: Index = Index(0)  # known to be durable there and equal to ours
    mode: Mode = Mode.PROBE
    probing: bool = False  # a probe is out, unanswered
    streaming: bool = False  # a snapshot is on its way
    inflight: deque[tuple[Index, int]] = field(default_factory=deque)  # (last index, bytes) of each, in order
    inflight_bytes: int = 0
    acked_round: int = 0  # the highest heartbeat round it answered
    bound_until_ms: float = float("-inf")  # by our clock: until then it votes for nobody else (lease.py)
    commit_sent: Index = Index(0)  # the commit index it was last told
    commit_wanted: Index = Index(0)  # it waits for this commit: tell it without delay
    match_at_beat: Index = Index(0)  # match_index at the last heartbeat; no move since means stalled

    def become_probe(self, next_index: Index) -> None:
        self.mode = Mode.PROBE
        self.probing = False
        self.next_index = max(next_index, Index(self.match_index + 1))
        self.inflight.clear()
        self.inflight_bytes = 0

    def become_snapshot(self) -> None:
        self.mode = Mode.SNAPSHOT
        self.streaming = True
        self.probing = False
        self.inflight.clear()
        self.inflight_bytes = 0

    def has_room(self, max_messages: int, max_bytes: int) -> bool:
        if self.mode is not Mode.REPLICATE:
            return self.mode is Mode.PROBE and not self.probing
        return len(self.inflight) < max_messages and self.inflight_bytes < max_bytes

    def sent(self, entries: tuple[Entry, ...]) -> None:
        """Account for one AppendEntries that just left."""
        if self.mode is Mode.PROBE:
            self.probing = True  # next_index stays: an answer decides
        elif entries:
            size = sum(len(entry.data) for entry in entries)
            self.inflight.append((entries[-1].index, size))
            self.inflight_bytes += size
            self.next_index = Index(entries[-1].index + 1)

    def acknowledged(self, match_index: Index) -> bool:
        """Its log is durable up to ``match_index``. Returns whether that was news; a late answer moves
        nothing back.
        """
        while self.inflight and self.inflight[0][0] <= match_index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        advanced = match_index > self.match_index
        self.match_index = max(self.match_index, match_index)
        if self.mode is not Mode.REPLICATE and (advanced or match_index == self.next_index - 1):
            self.mode, self.probing = Mode.REPLICATE, False
            self.next_index = Index(self.match_index + 1)
        self.next_index = max(self.next_index, Index(self.match_index + 1))
        return advanced

    def stalled(self) -> bool:
        """At a heartbeat: whether what was sent before the last one is still unanswered. Remembers where we
        are.
        """
        moved = self.match_index > self.match_at_beat
        self.match_at_beat = self.match_index
        waiting = self.probing or bool(self.inflight)
        return waiting and not moved
