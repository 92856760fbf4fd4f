"""A log that begins after a snapshot: boundary records, segments that go, what the first one left says."""

from __future__ import annotations

from random import Random

import pytest

from raftkv.consensus.types import NO_SNAPSHOT, GroupId, Index, NodeId, SnapshotMeta
from raftkv.errors import StartError
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.storage.inspect import dump
from raftkv.storage.record import Commit, RecordType, encode_commit
from raftkv.storage.recovery import GroupReplay
from raftkv.storage.scan import SegmentScan
from raftkv.storage.segment import HEADER_BYTES, decode_header, segment_paths
from raftkv.storage.wal import Recovered, Wal
from tests.storage.samples import DIRECTORY, G0, NODE, entry, indexes, open_wal, position, write

ONE_EACH = 600  # bytes a segment, so that a batch of one large entry fills it


def segments(files: SimFiles) -> list[int]:
    return [int(name[4:14]) for name in files.names(DIRECTORY) if name.endswith(".log")]


def log(last: int, *, files: SimFiles | None = None) -> tuple[SimFiles, Wal]:
    """Entries 1 to ``last``, each in a segment of its own."""
    files = files or SimFiles(Random(1))
    wal, _ = open_wal(files, segment_bytes=ONE_EACH)
    for index in range(1, last + 1):
        wal.commit([write(entry(index, bytes(300)))])
    return files, wal


def reopened(files: SimFiles) -> Recovered:
    files.crash(Tear.LOST)
    return open_wal(files, segment_bytes=ONE_EACH)[1]


def lose(files: SimFiles, count: int) -> None:
    """The first ``count`` segments, as when the power goes while more are removed."""
    for path in segment_paths(DIRECTORY, files.names(DIRECTORY))[:count]:
        files.unlink(path)
    files.sync_directory(DIRECTORY)


def state(recovered: Recovered) -> tuple[SnapshotMeta, list[int]]:
    return recovered.groups[G0].boundary, indexes(recovered)


@pytest.mark.parametrize("index", range(8))
def test_dropped_segments_leave_the_rest(index: int) -> None:
    files, wal = log(5)
    assert segments(files) == [1, 2, 3, 4, 5]
    dropped = min(index, 4)  # the segment that is written now stays
    assert wal.drop_before(Index(index)) == dropped
    wal.commit([write(entry(6))])
    expected = position(dropped) if dropped else NO_SNAPSHOT
    assert state(reopened(files)) == (expected, list(range(dropped + 1, 7)))
    assert segments(files)[0] == dropped + 1


def test_the_first_segment_left_carries_incarnation_and_votes() -> None:
    files, wal = log(3)
    wal.commit([write(term=7, vote="n2")])
    wal.commit([write(entry(4))])
    wal.drop_before(Index(4))
    assert reopened(files).groups[G0].hard_state.voted_for == "n2"
    for incarnation in (3, 4):
        assert reopened(files).incarnation == incarnation


@pytest.mark.parametrize("reopens", [False, True])
@pytest.mark.parametrize("boundary", [None, position(9)])
def test_a_segment_with_entries_of_another_group_stays(boundary: SnapshotMeta | None, reopens: bool) -> None:
    files, wal = log(2)
    entries = [] if boundary else [entry(1)]
    wal.commit([write(entry(3, bytes(300))), write(*entries, boundary=boundary, group=GroupId(5))])
    for index in range(4, 7):
        wal.commit([write(entry(index, bytes(300)))])
    if reopens:
        files.kill()
        wal, _ = open_wal(files, segment_bytes=ONE_EACH)
    assert wal.drop_before(Index(6)) == 2
    other = reopened(files).groups[GroupId(5)]
    assert (other.boundary, list(other.entries)) == (boundary or NO_SNAPSHOT, entries)


def test_a_reopened_log_knows_what_may_go() -> None:
    """... also where a suffix was replaced: what is in the old segment counts, not what became of it."""
    files, wal = log(4)
    wal.commit([write(entry(3, bytes(300), term=2))])
    assert segments(files) == [1, 2, 3, 4, 5]
    files.kill()
    wal, _ = open_wal(files, segment_bytes=ONE_EACH)
    assert wal.drop_before(Index(3)) == 3
    assert segments(files) == [4, 5], "segment 4 holds entry 4"
    assert state(reopened(files)) == (position(3, 2), [])


def test_what_replaces_an_entry_below_the_first_segment_left() -> None:
    """The log stood at 4@1 when segment 5 was begun, and 3@2 replaced it: what is left begins after 3@2."""
    files, wal = log(4)
    wal.commit([write(*(entry(index, term=2) for index in range(3, 7)))])
    assert wal.drop_before(Index(4)) == 4
    assert state(reopened(files)) == (position(3, 2), [4, 5, 6])
    wal, _ = open_wal(files, segment_bytes=ONE_EACH)
    wal.commit([write(entry(7, term=2))])
    assert state(reopened(files)) == (position(3, 2), [4, 5, 6, 7])


def test_what_is_final_is_not_replaced() -> None:
    for bad in (write(entry(3, term=9)), write(boundary=position(2)), write(boundary=position(3, 9))):
        files, wal = log(5)
        wal.drop_before(Index(3))
        with pytest.raises(StartError, match="broken invariant") as refused:
            wal.commit([bad])
        assert refused.value.exit_code == 70
    files, wal = log(5)
    wal.drop_before(Index(9))
    wal.commit([write(entry(6))])
    assert indexes(reopened(files))[-1] == 6, "no more is final than there is"


def test_a_drop_makes_what_replaces_an_entry_durable_first() -> None:
    files, wal = log(3)
    wal.append([write(entry(3, term=2))])
    wal.drop_before(Index(3))
    assert state(reopened(files))[0] == position(3, 2)


@pytest.mark.parametrize("tear", list(Tear))
@pytest.mark.parametrize("fuse", range(6))
def test_power_cuts_while_segments_go(fuse: int, tear: Tear) -> None:
    files, wal = log(4)
    files.fuse = fuse
    with pytest.raises(PowerCut):
        wal.drop_before(Index(3))
    files.crash(tear)
    recovered = open_wal(files, segment_bytes=ONE_EACH)[1]
    assert indexes(recovered)[-1] == 4
    assert recovered.groups[G0].boundary.index <= 3


def test_a_disk_that_fails_while_segments_go_stops_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise OSError(5, "Input/output error")

    files, wal = log(4)
    monkeypatch.setattr(files, "sync_directory", fail)
    with pytest.raises(StartError, match=r"0001\.log: removing a segment failed: Input/output") as refused:
        wal.drop_before(Index(3))
    assert refused.value.exit_code == 74
    with pytest.raises(StartError, match="closed, or failed before"):
        wal.drop_before(Index(3))


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        (position(2, 9), []),  # another entry was there
        (position(9), []),
    ],
)
def test_a_boundary(boundary: SnapshotMeta, expected: list[int]) -> None:
    files, wal = log(4)
    wal.commit([write(boundary=boundary, term=9)])
    for life in range(2):  # the second reads a POSITION that the log wrote after the boundary
        recovered = reopened(files)
        assert state(recovered) == (boundary, expected)
        assert recovered.groups[G0].hard_state.current_term == 9
        wal, _ = open_wal(files, segment_bytes=ONE_EACH)
        following = (expected or [boundary.index])[-1] + 1
        term = boundary.term
        wal.commit([write(entry(following, bytes(900), term=term))])
        wal.commit([write(entry(following + 1, term=term), term=10 + life)])
        expected = [*expected, following, following + 1]
        assert state(reopened(files)) == (boundary, expected)
        wal, _ = open_wal(files, segment_bytes=ONE_EACH)
        wal.commit([write(term=9)])


@pytest.mark.parametrize("gone", range(4))
@pytest.mark.parametrize("index", [1, 3])
def test_a_boundary_at_an_entry_that_is_there_leaves_the_log_as_it_is(index: int, gone: int) -> None:
    """... also once that entry's segment is gone, and the first one left was begun beyond the boundary."""
    files, wal = log(3)
    wal.commit([write(term=9, boundary=position(index))])
    wal.commit([write(entry(4))])
    lose(files, gone)
    assert state(reopened(files)) == (position(gone) if gone else NO_SNAPSHOT, [1, 2, 3, 4][gone:])
    files, wal = log(3)
    wal.commit([write(boundary=position(index))])
    with pytest.raises(StartError, match=f"entry {index} of group 0"):
        wal.commit([write(entry(index, term=9))])


def test_a_boundary_of_an_earlier_version_at_an_entry_that_is_there_keeps_what_follows() -> None:
    replay = GroupReplay(entries=[entry(index) for index in range(1, 5)])
    assert replay.begin_after(position(2))
    assert (replay.boundary, replay.entries) == (position(2), [entry(3), entry(4)])


@pytest.mark.parametrize("gone", range(7))
def test_a_boundary_below_where_the_log_stood_when_its_segment_was_begun(gone: int) -> None:
    """It takes all away, also as the first segment left; the next one was begun right after it."""
    files, wal = log(5)
    wal.commit([write(boundary=position(3, 2))])
    wal.commit([write(*(entry(index, term=2) for index in range(4, 7)))])
    assert segments(files) == [1, 2, 3, 4, 5, 6, 7]
    lose(files, gone)
    assert state(reopened(files)) == (position(3, 2), [4, 5, 6])


def test_order_within_a_write() -> None:
    files, wal = log(2)
    wal.commit([write(entry(8, term=2), entry(9, term=2), term=3, boundary=position(7, 2))])
    types = [line.type for line in dump(DIRECTORY, files)]
    assert types[-5:] == [
        RecordType.HARD_STATE, RecordType.BOUNDARY, RecordType.ENTRY, RecordType.ENTRY, RecordType.COMMIT,
    ]  # fmt: skip
    assert state(reopened(files)) == (position(7, 2), [8, 9])


def test_after_a_boundary_the_old_segments_can_go() -> None:
    files, wal = log(3)
    wal.commit([write(boundary=position(9, 2))])
    wal.commit([write(entry(10, bytes(300), term=2))])
    wal.commit([write(entry(11, term=2))])
    assert wal.drop_before(Index(9)) >= 3
    assert state(reopened(files)) == (position(9, 2), [10, 11])


@pytest.mark.parametrize("boundary", [position(0), position(3), position(4, 7)])
def test_a_boundary_below_the_last_one_is_refused(boundary: SnapshotMeta) -> None:
    _, wal = log(2)
    wal.commit([write(boundary=position(4, 2))])
    with pytest.raises(StartError, match=f"a boundary at {boundary.index}@{boundary.term} of group 0"):
        wal.commit([write(boundary=boundary)])


def test_entries_must_follow_a_boundary() -> None:
    for bad in (4, 6):
        _, wal = log(2)
        with pytest.raises(StartError, match=f"entry {bad} of group 0 would follow entry 4"):
            wal.commit([write(entry(bad), boundary=position(4, 2))])


def strip_positions(files: SimFiles) -> None:
    """Make of all segments what a version before there were POSITION records wrote."""
    for path in segment_paths(DIRECTORY, files.names(DIRECTORY)):
        data = files.read(path)
        header = decode_header(data, path)
        scan = SegmentScan(path, data, header, is_last=True)
        first = next(scan.batches())
        kept = [record for record in first.records if record.type != RecordType.POSITION]
        raw = b"".join(data[record.offset : record.end] for record in kept)
        commit = encode_commit(header.salt, Commit(first.number, len(kept), 0))
        file = files.create(path)
        file.append(data[:HEADER_BYTES] + raw + commit + data[first.commit.end :])
        file.sync()
        files.sync_directory(DIRECTORY)


def test_segments_that_don_t_say_where_they_begin_stay_until_there_is_one_that_does() -> None:
    files, _ = log(3)
    files.kill()
    strip_positions(files)
    wal, recovered = open_wal(files, segment_bytes=ONE_EACH)
    assert state(recovered) == (NO_SNAPSHOT, [1, 2, 3])
    assert wal.drop_before(Index(3)) == 0
    for index in (4, 5):
        wal.commit([write(entry(index, bytes(300)))])
    assert wal.drop_before(Index(5)) == 0, "the second couldn't be the first if the power went then"
    assert indexes(reopened(files)) == [1, 2, 3, 4, 5]
    files.unlink(DIRECTORY / files.names(DIRECTORY)[0])
    with pytest.raises(StartError, match="begins at index 2, and the log before it ends at 0"):
        open_wal(files)


def test_the_first_segment_left_says_whose_it_is() -> None:
    files, wal = log(3)
    wal.drop_before(Index(2))
    with pytest.raises(StartError, match=f"belongs to node '{NODE}'"):
        Wal.open(files, DIRECTORY, "0123456789abcdef", NodeId("n2"))
