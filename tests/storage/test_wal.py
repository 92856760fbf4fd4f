"""The log opened, written, closed, rolled; who it belongs to; the real file system below it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raftkv.consensus.types import GroupId, HardState, NodeId, Term
from raftkv.errors import StartError
from raftkv.storage.files import OsFiles
from raftkv.storage.inspect import dump
from raftkv.storage.record import RecordType
from raftkv.storage.wal import GroupState, Wal
from tests.storage.faulty_files import FaultyFiles, Tear
from tests.storage.samples import CLUSTER, DIRECTORY, G0, NODE, apply, entry, indexes, open_wal, write


def segments(files: FaultyFiles) -> list[str]:
    return [name for name in files.names(DIRECTORY) if name.endswith(".log")]


def test_a_new_log_is_empty() -> None:
    files = FaultyFiles()
    _, recovered = open_wal(files)
    assert (recovered.incarnation, recovered.groups, recovered.segments) == (1, {}, 0)
    assert segments(files) == ["wal-0000000001-00000000000000000001.log"]


def test_what_was_committed_is_recovered() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files)
    batches = [
        [write(term=1, vote="n2")],
        [write(entry(1), entry(2)), write(entry(3))],
        [write(entry(1), group=GroupId(7), term=4)],
        [write(entry(2, term=2), term=2)],  # replaces 2 and 3
    ]
    model = apply({}, [])
    for batch in batches:
        wal.commit(batch)
        model = apply(model, batch)
    files.crash(Tear.LOST)
    _, recovered = open_wal(files)
    assert recovered.groups == model
    assert indexes(recovered) == [1, 2]
    assert recovered.groups[G0].hard_state == HardState(Term(2), None)
    assert (recovered.batches, recovered.segments, recovered.dropped_tail_bytes) == (5, 1, 0)


def test_the_incarnation_grows_with_each_start_however_the_last_one_ended() -> None:
    files = FaultyFiles()
    for expected in range(1, 6):
        wal, recovered = open_wal(files)
        assert recovered.incarnation == expected
        wal.commit([write(entry(expected))])
        files.kill() if expected % 2 else files.crash(Tear.LOST)
    _, recovered = open_wal(files)
    assert indexes(recovered) == [1, 2, 3, 4, 5]


def test_a_batch_is_one_write_and_one_sync() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files)
    writes, syncs = files.writes, files.syncs
    wal.commit([write(entry(n), term=n) for n in range(1, 50)])
    assert (files.writes - writes, files.syncs - syncs) == (1, 1)
    wal.commit([write(), write()])
    assert (files.writes - writes, files.syncs - syncs) == (1, 1), "nothing to write, nothing to sync"


def test_a_second_append_syncs_the_first() -> None:
    """A torn batch with a whole one after it would look like damage."""
    files = FaultyFiles()
    wal, _ = open_wal(files)
    wal.append([write(entry(1))])
    wal.append([write(entry(2))])
    files.crash(Tear.LOST)
    assert indexes(open_wal(files)[1]) == [1]


@pytest.mark.parametrize("index", [0, 3])
def test_a_gap_is_refused_and_final(index: int) -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files)
    wal.commit([write(entry(1))])
    with pytest.raises(StartError, match=f"broken invariant: entry {index} .* follow entry 1") as refused:
        wal.commit([write(entry(index))])
    assert refused.value.exit_code == 70
    with pytest.raises(StartError, match="closed, or failed before"):
        wal.commit([write(entry(2))])
    files.crash(Tear.KEPT)
    assert indexes(open_wal(files)[1]) == [1]


def test_segments_roll_and_repeat_what_recovery_needs() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files, segment_bytes=4096)
    wal.commit([write(term=3, vote="n2"), write(group=GroupId(2), term=8)])
    for index in range(1, 31):
        wal.commit([write(entry(index, bytes(300)))])
    names = segments(files)
    assert len(names) > 2
    files.crash(Tear.LOST)
    for name in names[1:]:
        header_batch = [line for line in dump(DIRECTORY, files) if line.file == name][:5]
        assert [line.type for line in header_batch] == [
            RecordType.BOOT, RecordType.HARD_STATE, RecordType.HARD_STATE, RecordType.POSITION,
            RecordType.COMMIT,
        ]  # fmt: skip
        assert [line.detail.get("term") for line in header_batch] == [None, 3, 8, 1, None]
    _, recovered = open_wal(files, segment_bytes=4096)
    assert indexes(recovered) == list(range(1, 31))
    assert recovered.segments == len(names)
    assert recovered.groups[GroupId(2)] == GroupState(HardState(Term(8), None))


def test_an_entry_may_be_replaced_in_a_later_segment() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files, segment_bytes=1024)
    for index in range(1, 11):
        wal.commit([write(entry(index, bytes(300)))])
    wal.commit([write(entry(2, term=5))])
    assert indexes(open_wal(files)[1]) == [1, 2]


@pytest.mark.parametrize("victim", [1, 2])
def test_a_missing_segment_is_refused(victim: int) -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files, segment_bytes=1024)
    for index in range(1, 11):
        wal.commit([write(entry(index, bytes(300)))])
    files.unlink(DIRECTORY / segments(files)[victim])
    with pytest.raises(StartError, match=f"segment {victim + 1} is missing") as refused:
        open_wal(files)
    assert refused.value.exit_code == 65


def test_a_renamed_segment_is_refused() -> None:
    files = FaultyFiles()
    open_wal(files)
    files.rename(DIRECTORY / segments(files)[0], DIRECTORY / "wal-0000000001-00000000000000000009.log")
    with pytest.raises(StartError, match="says that its name is"):
        open_wal(files)


def test_temporary_files_go_but_only_after_all_is_sound() -> None:
    files = FaultyFiles()
    open_wal(files)
    temporary = DIRECTORY / "wal-0000000002-00000000000000000001.log.tmp"
    files.put(temporary, b"half a seg")
    files.put(DIRECTORY / "notes.tmp", b"not ours")
    sound = files.read(DIRECTORY / segments(files)[0])
    files.put(DIRECTORY / segments(files)[0], sound[:-1] + b"x")
    with pytest.raises(StartError):
        open_wal(files)
    assert temporary in files.paths
    files.put(DIRECTORY / segments(files)[0], sound)
    open_wal(files)
    assert files.names(DIRECTORY) == ["notes.tmp", *segments(files)]


def test_another_node_s_or_cluster_s_directory_is_refused() -> None:
    files = FaultyFiles()
    open_wal(files)
    with pytest.raises(StartError, match="belongs to node 'n1', and this is node 'n2'") as refused:
        Wal.open(files, DIRECTORY, CLUSTER, NodeId("n2"))
    assert refused.value.exit_code == 78
    with pytest.raises(StartError, match=f"cluster {CLUSTER}, and this node was told cluster {'f' * 16}"):
        Wal.open(files, DIRECTORY, "f" * 16, NODE)


def test_the_rewritten_segment_survives_a_failed_fsync_of_the_life_before() -> None:
    """ATC'20: after a failed fsync the next process reads from the page cache what the disk doesn't have.
    What it recovered and built upon must be durable all the same."""
    files = FaultyFiles()
    wal, _ = open_wal(files)
    wal.commit([write(entry(1))])
    files.fail_sync_at = files.syncs + 1
    with pytest.raises(StartError, match="fdatasync failed: Input/output error"):
        wal.commit([write(entry(2))])
    syncs = files.syncs
    with pytest.raises(StartError, match="closed, or failed before"):
        wal.commit([write(entry(2))])
    with pytest.raises(StartError, match="closed, or failed before"):
        wal.sync()
    assert files.syncs == syncs
    files.kill()
    wal, recovered = open_wal(files)
    assert indexes(recovered) == [1, 2]
    wal.commit([write(entry(3))])
    files.crash(Tear.LOST)
    assert indexes(open_wal(files)[1]) == [1, 2, 3]


def test_a_torn_tail_is_gone_after_one_start_and_the_log_goes_on() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files)
    wal.commit([write(entry(1))])
    wal.append([write(entry(2, b"x" * 3000))])
    path, data = wal.path, files.read(wal.path)
    files.put(path, data[:-100])
    wal, recovered = open_wal(files)
    assert (indexes(recovered), recovered.dropped_tail_bytes) == ([1], 3072 - 100 + 32)
    wal.commit([write(entry(2, b"another"))])
    for _ in range(2):  # killed twice, without a write between
        files.kill()
        _, recovered = open_wal(files)
        assert (indexes(recovered), recovered.dropped_tail_bytes, recovered.dropped_tail) == ([1, 2], 0, "")
    assert recovered.groups[G0].entries[1].data == b"another"


@pytest.mark.parametrize("fault", ["fail_write_at", "fail_sync_at"])
def test_an_open_that_fails_changes_nothing_and_may_be_repeated(fault: str) -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files)
    wal.commit([write(entry(1))])
    files.kill()
    setattr(files, fault, 1)
    with pytest.raises(StartError) as failed:
        open_wal(files)
    assert failed.value.exit_code == 74
    files.crash(Tear.LOST)
    _, recovered = open_wal(files)
    assert (indexes(recovered), recovered.incarnation) == ([1], 2)


def test_a_full_disk_while_rolling_stops_the_log() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files, segment_bytes=600)
    wal.commit([write(entry(1))])
    files.fail_write_at, files.write_errno = files.writes + 1, errno.ENOSPC
    with pytest.raises(StartError, match="writing a new segment failed: No space left on device"):
        wal.commit([write(entry(2))])
    files.crash(Tear.KEPT)
    assert indexes(open_wal(files)[1]) == [1]


def test_on_the_real_file_system(tmp_path: Path) -> None:
    files = OsFiles()
    for life in range(3):
        wal, recovered = open_wal(files, tmp_path, segment_bytes=2000)
        assert recovered.incarnation == life + 1
        assert indexes(recovered) == list(range(1, life * 20 + 1))
        for index in range(life * 20 + 1, life * 20 + 21):
            wal.commit([write(entry(index, bytes([index]) * 200))])
        assert (recovered.dropped_tail_bytes, recovered.dropped_tail) == (0, "")
        if life != 1:  # that one is killed, and leaves what it made its last segment larger
            wal.close()
    assert len(list(tmp_path.glob("wal-*.log"))) > 3
    with next(iter(sorted(tmp_path.glob("wal-*.log"), reverse=True))).open("ab") as tail:
        tail.write(b"torn")
    _, recovered = open_wal(files, tmp_path)
    assert (indexes(recovered), recovered.dropped_tail_bytes) == (list(range(1, 61)), 4)
    assert "the file ends within a record's header" in recovered.dropped_tail
    wal.close()


def test_a_directory_that_can_t_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wal-0000000001-00000000000000000001.log").mkdir()
    with pytest.raises(StartError, match="reading the log failed: Is a directory") as refused:
        open_wal(OsFiles(), tmp_path)
    assert refused.value.exit_code == 74
