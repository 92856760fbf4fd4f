"""The WAL against the plainest model of it: random writes, overwrites, crashes, kills and disk faults.

What must hold after every start: all acknowledged batches are there, in order; of the one batch that may have
been under way, all or nothing.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from raftkv.consensus.types import Entry, EntryKind, GroupId, HardState, Index, NodeId, Term, Write
from raftkv.errors import StartError
from raftkv.storage.inspect import verify
from raftkv.storage.wal import GroupState, Wal
from tests.storage.faulty_files import FaultyFiles, Tear
from tests.storage.samples import DIRECTORY, Groups, apply, open_wal

VALUES = st.one_of(
    st.binary(max_size=64),
    st.builds(lambda zeros, tail: bytes(zeros) + tail, st.integers(0, 1600), st.binary(max_size=4)),
    st.integers(0, 255).map(lambda b: bytes((b,)) * 1100),
)
VOTES = st.none() | st.builds(HardState, st.integers(1, 99).map(Term), st.none() | st.just(NodeId("n2")))


class WalModel(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), segment_bytes=st.sampled_from([600, 3000, 1 << 20]))
    def begin(self, seed: int, segment_bytes: int) -> None:
        self.files = FaultyFiles(seed)
        self.segment_bytes = segment_bytes
        self.acknowledged: Groups = {}
        self.under_way: Groups | None = None  # with the batch that was written but not acknowledged
        self.incarnation = 0
        self.start()

    def start(self) -> None:
        report = verify(DIRECTORY, self.files)
        assert report.damage is None
        self.wal: Wal | None
        self.wal, recovered = open_wal(self.files, segment_bytes=self.segment_bytes)
        assert recovered.groups in ([self.acknowledged] + [self.under_way] * (self.under_way is not None))
        assert recovered.incarnation == self.incarnation + 1
        assert recovered.dropped_tail_bytes == report.torn_tail_bytes
        self.acknowledged, self.under_way = recovered.groups, None
        self.incarnation = recovered.incarnation

    def a_write(self, data: st.DataObject, model: Groups) -> Write:
        group = GroupId(data.draw(st.sampled_from([0, 0, 0, 5]), "group"))
        last = len(model.get(group, GroupState()).entries)
        first = data.draw(st.integers(max(1, last - 2), last + 1), "first index")
        values = data.draw(st.lists(VALUES, max_size=4), "values")
        entries = tuple(
            Entry(Index(first + n), Term(first + n), EntryKind(n % 2), n, value)
            for n, value in enumerate(values)
        )
        return Write(group, data.draw(VOTES, "hard state"), entries)

    def a_batch(self, data: st.DataObject) -> tuple[list[Write], Groups]:
        writes: list[Write] = []
        model = self.acknowledged
        for _ in range(data.draw(st.integers(1, 3), "writes")):
            writes.append(self.a_write(data, model))
            model = apply(model, writes[-1:])
        return writes, model

    @precondition(lambda self: self.wal is not None)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        assert self.wal is not None
        writes, model = self.a_batch(data)
        self.wal.commit(writes)
        self.acknowledged = model

    @precondition(lambda self: self.wal is not None)
    @rule(data=st.data(), fails=st.sampled_from(["fail_write_at", "fail_sync_at"]), after=st.integers(1, 2))
    def commit_on_a_failing_disk(self, data: st.DataObject, fails: str, after: int) -> None:
        assert self.wal is not None
        writes, model = self.a_batch(data)
        done = self.files.writes if fails == "fail_write_at" else self.files.syncs
        setattr(self.files, fails, done + after)
        try:
            self.wal.commit(writes)
        except StartError:
            self.under_way, self.wal = model, None
        else:
            self.files.fail_write_at = self.files.fail_sync_at = -1
            self.acknowledged = model

    @precondition(lambda self: self.wal is not None)
    @rule(data=st.data(), tear=st.sampled_from(Tear))
    def lose_power_while_writing(self, data: st.DataObject, tear: Tear) -> None:
        assert self.wal is not None
        writes, self.under_way = self.a_batch(data)
        self.wal.append(writes)
        self.files.crash(tear)
        self.start()

    @rule(tear=st.sampled_from(Tear))
    def lose_power(self, tear: Tear) -> None:
        self.files.crash(tear)
        self.start()

    @rule()
    def kill(self) -> None:
        self.files.kill()
        self.start()

    @rule(fails=st.sampled_from(["fail_write_at", "fail_sync_at"]), tear=st.none() | st.sampled_from(Tear))
    def fail_to_start(self, fails: str, tear: Tear | None) -> None:
        self.files.kill()
        setattr(self.files, fails, 1)
        with pytest.raises(StartError, match="writing a new segment failed"):
            open_wal(self.files, segment_bytes=self.segment_bytes)
        self.files.kill() if tear is None else self.files.crash(tear)
        self.start()


WalModel.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestWalModel = WalModel.TestCase
