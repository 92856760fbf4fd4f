"""Log and snapshots against the plainest model of them: entries, overwrites, snapshots, segments that go,
snapshots installed, crashes at any call, damage.

What must hold after every start: snapshot and log together are every acknowledged entry from the first one
on, in order; of what was under way, all or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raftkv.consensus.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term, Write
from raftkv.errors import StartError
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.storage.inspect import verify
from raftkv.storage.recovery import NO_HARD_STATE
from raftkv.storage.wal import GroupState
from tests.storage.machine import all_of, start, take
from tests.storage.samples import DIRECTORY, G0, entry

SIZES = st.sampled_from([1, 1, 200, 700])
TEARS = st.sampled_from(Tear)


class StorageModel(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), segment_bytes=st.sampled_from([600, 2000]))
    def begin(self, seed: int, segment_bytes: int) -> None:
        self.files = SimFiles(Random(seed))
        self.segment_bytes = segment_bytes
        self.hard_state = NO_HARD_STATE
        self.entries: list[Entry] = []  # what is acknowledged
        self.final = 0  # committed up to here: never replaced
        self.start([])

    def start(self, under_way: list[tuple[HardState, list[Entry]]]) -> None:
        """... to exactly what was acknowledged, or to one of ``under_way``."""
        report = verify(DIRECTORY, self.files)
        assert report.damage is None, report.damage
        self.opened = start(self.files, self.segment_bytes)
        self.wal = self.opened.wal
        found = self.opened.recovered.groups.get(G0, GroupState()).hard_state, all_of(self.opened)
        assert found in [(self.hard_state, self.entries), *under_way]
        self.hard_state, self.entries = found
        covered = self.opened.snapshot.index if self.opened.snapshot else 0
        self.final = max(covered, min(self.final, len(self.entries)))

    def crash(self, tear: Tear | None, under_way: list[tuple[HardState, list[Entry]]]) -> None:
        self.files.kill() if tear is None else self.files.crash(tear)
        self.start(under_way)

    def some_entries(self, data: st.DataObject, entries: list[Entry]) -> tuple[HardState, list[Entry], Write]:
        """A write and what it leads to. A suffix that is replaced is replaced in a later term."""
        first = data.draw(st.integers(max(self.final, len(entries) - 3) + 1, len(entries) + 1), "first")
        term = Term(self.hard_state.current_term + (first <= len(entries)))
        sizes = data.draw(st.lists(SIZES, max_size=4), "sizes")
        new = [entry(first + n, bytes(size), max(1, term)) for n, size in enumerate(sizes)]
        after = [*entries[: first - 1], *new] if new else entries
        vote = data.draw(st.sampled_from([None, None, NodeId("n2")]), "vote")
        hard_state = HardState(Term(max(1, term)), vote)
        return hard_state, after, Write(G0, hard_state, tuple(new))

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.hard_state, self.entries, write = self.some_entries(data, self.entries)
        self.wal.commit([write])

    def meta(self, entries: list[Entry], index: int) -> SnapshotMeta:
        last = entries[index - 1]
        return SnapshotMeta(last.index, last.term, last.time_ms)

    def snapshot_of(self, data: st.DataObject, entries: list[Entry]) -> None:
        """... as the node takes one: what it covers is committed."""
        index = data.draw(st.integers(max(1, self.final), len(entries)), "index")
        self.final = index
        take(self.opened.snapshots, self.meta(entries, index), entries[:index])
        self.opened.snapshots.keep_newest(2)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        self.snapshot_of(data, self.entries)

    @rule(data=st.data(), newest=st.booleans())
    def drop(self, data: st.DataObject, newest: bool) -> None:
        metas = self.opened.snapshots.metas()
        covered = 0 if not metas else metas[0].index if newest else metas[-1].index
        self.wal.drop_before(Index(data.draw(st.integers(0, covered), "index")))

    @rule(data=st.data(), more=st.integers(0, 3), same=st.booleans())
    def install(self, data: st.DataObject, more: int, same: bool) -> None:
        hard_state, entries, work = self.an_install(data, more, same)
        work()
        self.hard_state, self.entries, self.final = hard_state, entries, len(entries)

    def an_install(
        self, data: st.DataObject, more: int, same: bool
    ) -> tuple[HardState, list[Entry], Callable[[], None]]:
        """A leader's snapshot: of our own entries, or of others from some index on."""
        if same and len(self.entries) > self.final:
            at = data.draw(st.integers(self.final + 1, len(self.entries)), "at")
            entries, covered, hard_state = self.entries, self.entries[:at], self.hard_state
        else:
            term = Term(self.hard_state.current_term + 1)
            kept = data.draw(st.integers(self.final, len(self.entries)), "kept")
            new = [entry(kept + 1 + n, b"leader's", term) for n in range(more + 1)]
            entries = covered = [*self.entries[:kept], *new]
            hard_state = HardState(term, None)
        boundary = self.meta(covered, len(covered))

        def work() -> None:
            take(self.opened.snapshots, boundary, covered)
            self.opened.snapshots.keep_newest(2)
            self.wal.commit([Write(G0, hard_state, (), boundary)])

        return hard_state, entries, work

    @rule(data=st.data(), fuse=st.integers(0, 25), tear=TEARS, more=st.integers(0, 3), same=st.booleans())
    def lose_power_while_installing(
        self, data: st.DataObject, fuse: int, tear: Tear, more: int, same: bool
    ) -> None:
        hard_state, entries, work = self.an_install(data, more, same)
        self.files.fuse = fuse
        done = False
        with suppress(PowerCut):
            work()
            done = True
        if done:
            self.hard_state, self.entries = hard_state, entries
        self.crash(tear, [(hard_state, entries)])

    @rule(data=st.data(), tear=TEARS)
    def lose_power_while_writing(self, data: st.DataObject, tear: Tear) -> None:
        hard_state, after, write = self.some_entries(data, self.entries)
        self.wal.append([write])
        self.crash(tear, [(hard_state, after)])

    @rule(data=st.data(), tear=TEARS, fuse=st.integers(0, 25))
    def lose_power_while_a_snapshot_is_ahead_of_the_log(
        self, data: st.DataObject, tear: Tear, fuse: int
    ) -> None:
        """The machine applied what a majority has on its disks, and this node not yet."""
        hard_state, after, write = self.some_entries(data, self.entries)
        if not after:
            return
        self.wal.append([write])
        self.files.fuse = fuse
        with suppress(PowerCut):
            self.snapshot_of(data, after)
        under_way = [(hard_state, after)]
        if self.final:
            covered = after[: self.final]
            raised = HardState(covered[-1].term, None)
            ours = self.hard_state if self.hard_state.current_term >= raised.current_term else raised
            under_way.append((ours, self.entries if self.entries[: self.final] == covered else covered))
        self.crash(tear, under_way)

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), fuse=st.integers(0, 40), tear=TEARS)
    def lose_power_while_a_snapshot_is_taken_and_segments_go(
        self, data: st.DataObject, fuse: int, tear: Tear
    ) -> None:
        self.files.fuse = fuse
        with suppress(PowerCut):
            self.snapshot_of(data, self.entries)
            self.wal.drop_before(self.opened.snapshots.metas()[-1].index)
        self.crash(tear, [])

    @rule(fuse=st.integers(0, 12), tear=TEARS)
    def lose_power_while_starting(self, fuse: int, tear: Tear) -> None:
        self.files.kill()
        self.files.fuse = fuse
        with suppress(PowerCut):
            start(self.files, self.segment_bytes)
        self.crash(tear, [])

    @rule(tear=st.none() | TEARS)
    def end(self, tear: Tear | None) -> None:
        self.crash(tear, [])

    @precondition(lambda self: self.opened.snapshots.paths())
    @rule(data=st.data())
    def damage_the_newest(self, data: st.DataObject) -> None:
        """Started from the older one, if the log begins before its end, or refused; never anything else."""
        self.files.kill()
        path, *older = self.opened.snapshots.paths()
        sound = self.files.read(path)
        at = data.draw(st.integers(0, len(sound) - 1), "at")
        self.files.put(path, sound[:at] + bytes((sound[at] ^ 1,)) + sound[at + 1 :])
        begins = verify(DIRECTORY, self.files).groups[0].boundary.index
        covered = self.opened.snapshots.read(older[0]).meta.index if older else 0
        if begins <= covered:
            self.start([])
            assert self.opened.set_aside
            return
        with pytest.raises(StartError, match=f"^{path}: damaged at byte "):
            start(self.files, self.segment_bytes)
        self.files.put(path, sound)
        self.start([])


StorageModel.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
TestStorageModel = StorageModel.TestCase
