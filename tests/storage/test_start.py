"""Which snapshot and log a start takes together, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from random import Random

import google_crc32c
import pytest

from raftkv.consensus.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term
from raftkv.errors import StartError
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.storage.segment import Owner
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.start import Opened, open_storage
from raftkv.storage.wal import GroupState, Wal
from tests.storage.machine import all_of, start, take
from tests.storage.samples import CLUSTER, DIRECTORY, G0, NODE, entry, position, write


def large(index: int) -> Entry:
    return entry(index, b"%d" % index + bytes(300))


def node(last: int, *snapshots: int, drop: int = 0) -> SimFiles:
    """Entries 1 to ``last``, a segment each, snapshots, and what was dropped. Its process has ended."""
    files = SimFiles(Random(1))
    opened = start(files)
    entries = [large(index) for index in range(1, last + 1)]
    opened.wal.commit([write(term=1)])
    for one in entries:
        opened.wal.commit([write(one)])
    for index in snapshots:
        take(opened.snapshots, position(index), entries[:index])
    opened.wal.drop_before(Index(drop))
    files.crash(Tear.LOST)
    return files


def snapshots_in(files: SimFiles) -> SnapshotFiles:
    return SnapshotFiles(files, DIRECTORY, Owner(CLUSTER, NODE))


def indexes(opened: Opened) -> list[int]:
    return [each.index for each in all_of(opened)]


def names(files: SimFiles, begin: str = "") -> list[str]:
    return [name for name in files.names(DIRECTORY) if name.startswith(begin)]


def newest(files: SimFiles) -> Path:
    return DIRECTORY / names(files, "snapshot-")[-1]


def contents(files: SimFiles) -> dict[str, bytes]:
    return {name: files.read(DIRECTORY / name) for name in files.names(DIRECTORY)}


def refusal(files: SimFiles) -> StartError:
    """... which changes nothing."""
    before = contents(files)
    with pytest.raises(StartError) as refused:
        start(files)
    assert contents(files) == before
    return refused.value


@pytest.mark.parametrize(
    ("snapshots", "drop", "used", "boundary"),
    [
        ((), 0, None, 0),
        ((3,), 0, 3, 0),
        ((3,), 3, 3, 3),
        ((3, 5), 3, 5, 3),
        ((3, 5), 5, 5, 5),
        ((3, 6), 6, 6, 5),
    ],
)
def test_the_newest_snapshot_and_the_log_after_it(
    snapshots: tuple[int, ...], drop: int, used: int | None, boundary: int
) -> None:
    files = node(6, *snapshots, drop=drop)
    for _ in range(2):
        opened = start(files)
        assert opened.snapshot == (None if used is None else position(used))
        assert opened.recovered.groups[G0].boundary.index == boundary
        assert indexes(opened) == [1, 2, 3, 4, 5, 6]
        assert opened.set_aside == ()


def test_a_new_directory() -> None:
    opened = start(SimFiles(Random(1)))
    assert (opened.snapshot, opened.recovered.groups, opened.recovered.incarnation) == (None, {}, 1)


def cut_and_flipped(data: bytes) -> Iterator[bytes]:
    yield from (data[:cut] for cut in range(len(data)))
    yield from (data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] for at in range(len(data)))


def test_every_cut_and_every_flipped_byte_of_the_newest_is_passed_over() -> None:
    sound = node(4, 2, 3, drop=2)
    path = newest(sound)
    for content in cut_and_flipped(sound.read(path)):
        files = deepcopy(sound)
        files.put(path, content)
        opened = start(files)
        assert (opened.snapshot, indexes(opened)) == (position(2), [1, 2, 3, 4])
        (aside,) = opened.set_aside
        assert aside.startswith(f"{path}: byte ")
        assert files.read(path.with_name(path.name + ".damaged")) == content


def test_every_cut_and_every_flipped_byte_is_refused_where_the_older_one_does_not_join() -> None:
    files = node(4, 2, 3, drop=3)
    path = newest(files)
    data = files.read(path)
    for content in cut_and_flipped(data):
        files.put(path, content)
        error = refusal(files)
        assert error.exit_code == 65
        assert str(error).startswith(f"{path}: damaged at byte ")
        assert "; without it the log begins after entry 3@1, and the snapshot before it ends at 2@1" in str(
            error
        )
        assert "never restart it empty" in str(error)
    files.put(path, data)
    assert indexes(start(files)) == [1, 2, 3, 4]


def test_a_whole_log_needs_no_snapshot() -> None:
    files = node(4, 3)
    files.put(newest(files), b"nothing")
    opened = start(files)
    assert (opened.snapshot, indexes(opened)) == (None, [1, 2, 3, 4])
    assert names(files, "snapshot-") == [f"snapshot-{3:020}-{1:020}.snap.damaged"]
    assert start(files).set_aside == ()


def test_a_log_that_begins_later_needs_one() -> None:
    files = node(4, 3, drop=3)
    files.unlink(newest(files))
    error = refusal(files)
    assert error.exit_code == 65
    first = DIRECTORY / names(files, "wal-")[0]
    assert f"{first}: damaged at byte 0: the log begins after entry 3@1, and there is no snapshot" in str(
        error
    )
    take(snapshots_in(files), position(2), [])
    assert "and the snapshot before it ends at 2@1" in str(refusal(files))


def test_a_snapshot_without_its_log_is_refused() -> None:
    files = node(4, 3, drop=3)
    for name in names(files, "wal-"):
        files.unlink(DIRECTORY / name)
    error = refusal(files)
    assert error.exit_code == 65
    assert "this snapshot's log is missing, and the votes in it" in str(error)


def test_a_newer_version_s_snapshot_is_not_passed_over() -> None:
    files = node(4, 2, 3)
    path = newest(files)
    data = bytearray(files.read(path))
    data[8] = 2
    data[508:512] = google_crc32c.value(bytes(data[:508])).to_bytes(4, "little")
    files.put(path, bytes(data))
    assert refusal(files).exit_code == 78


def test_another_node_s_snapshot_is_refused() -> None:
    files = node(4, 3)
    for name in names(files, "wal-"):
        files.unlink(DIRECTORY / name)
    Wal.open(files, DIRECTORY, CLUSTER, NodeId("n2"))
    with pytest.raises(StartError, match="belongs to node 'n1', and this is node 'n2'"):
        open_storage(files, DIRECTORY, CLUSTER, NodeId("n2"))


def test_temporary_files_go_but_only_after_all_is_sound() -> None:
    files = node(4, 3, drop=3)
    path = newest(files)
    temporary = path.with_name(path.name + ".1.tmp")
    files.put(temporary, b"half")
    data = files.read(path)
    files.put(path, data[:-1])
    refusal(files)
    files.put(path, data)
    start(files)
    assert temporary.name not in files.names(DIRECTORY)


@pytest.mark.parametrize(
    ("last", "at", "expected"),
    [
        (2, position(5), [1, 2, 3, 4, 5]),  # the log ends before it
        (4, position(4), [1, 2, 3, 4]),  # it is there, and was before
        (4, position(3, 2), [1, 2, 3]),  # another entry is there, so what follows was never committed
        (4, position(4, 2), [1, 2, 3, 4]),
    ],
)
def test_a_snapshot_that_is_ahead_of_the_log(last: int, at: SnapshotMeta, expected: list[int]) -> None:
    files = node(last)
    machine = [large(index) for index in range(1, at.index + 1)]
    if at.term > 1:
        machine[-1] = entry(at.index, term=at.term)
    take(snapshots_in(files), at, machine)
    for life in range(3):
        opened = start(files)
        state = opened.recovered.groups[G0]
        assert (opened.snapshot, indexes(opened)) == (at, expected)
        assert state.hard_state == HardState(at.term, None)
        assert opened.recovered.incarnation == life + 2
        opened.wal.commit([write(entry(expected[-1] + 1, term=at.term))])
        expected = [*expected, expected[-1] + 1]
        files.crash(Tear.LOST)


def test_a_vote_of_a_later_term_than_the_snapshot_s_stays() -> None:
    files = node(2)
    wal = Wal.open(files, DIRECTORY, CLUSTER, NODE)[0]
    wal.commit([write(term=9, vote="n3")])
    take(snapshots_in(files), position(5, 4), [entry(n) for n in range(1, 6)])
    assert start(files).recovered.groups[G0] == GroupState(
        HardState(Term(9), NodeId("n3")), position(5, 4), ()
    )


def install(opened: Opened) -> None:
    """A leader's snapshot at 6@2: the file first, then the log."""
    take(opened.snapshots, position(6, 2), [entry(n, b"leader's", term=2) for n in range(1, 7)])
    opened.wal.commit([write(boundary=position(6, 2), term=2)])


def snapshot_and_drop(opened: Opened) -> None:
    take(opened.snapshots, position(3), all_of(opened)[:3])
    opened.snapshots.keep_newest(2)
    opened.wal.drop_before(Index(2))


@pytest.mark.parametrize("tear", list(Tear))
@pytest.mark.parametrize(
    ("work", "after"), [(install, [1, 2, 3, 4, 5, 6]), (snapshot_and_drop, [1, 2, 3, 4])]
)
def test_a_crash_at_every_call(work: Callable[[Opened], None], after: list[int], tear: Tear) -> None:
    fuse, is_done = 0, False
    while not is_done:
        files = node(4, 1, 2, drop=1)
        opened = start(files)
        files.random.seed(fuse)
        files.fuse = fuse
        try:
            work(opened)
            is_done = True
        except PowerCut:
            fuse += 1
        files.crash(tear)
        again = start(files)
        found = indexes(again)
        assert found == after or (not is_done and found == [1, 2, 3, 4])
        if work is install:
            assert [e.term for e in all_of(again)] == [1 if found[-1] == 4 else 2] * found[-1]
        again.wal.commit([write(entry(found[-1] + 1, term=2))])
        files.crash(tear)
        assert indexes(start(files)) == [*found, found[-1] + 1]
    assert fuse > 8


def test_an_installed_snapshot_that_is_gone_or_damaged_is_refused() -> None:
    files = node(4, 2)
    install(start(files))
    path = newest(files)
    data = files.read(path)
    files.put(path, data[:-1])
    error = refusal(files)
    assert error.exit_code == 65
    assert f"{path}: damaged at byte " in str(error)
    assert "the log begins after entry 6@2, and the snapshot before it ends at 2@1" in str(error)
    files.unlink(path)
    assert "the log begins after entry 6@2, and the snapshot before it ends at 2@1" in str(refusal(files))
    take(snapshots_in(files), position(6, 1), [])
    assert "the snapshot before it ends at 6@1" in str(refusal(files)), "another one of that index"


@pytest.mark.parametrize("fuse", range(12))
@pytest.mark.parametrize("tear", list(Tear))
def test_a_crash_at_every_call_of_a_start(fuse: int, tear: Tear) -> None:
    """... that has a damaged snapshot to set aside, one ahead of the log, and a half-written one."""
    files = node(2, 1)
    found = snapshots_in(files)
    take(found, position(5), [entry(n) for n in range(1, 6)])
    take(found, position(7), [])
    files.put(newest(files), b"damaged")
    found.begin(position(8), b"").append(b"half")
    files.random.seed(fuse)
    files.fuse = fuse
    with suppress(PowerCut):
        start(files)
    files.crash(tear)
    opened = start(files)
    assert (opened.snapshot, indexes(opened)) == (position(5), [1, 2, 3, 4, 5])
    assert opened.recovered.incarnation >= 2
    assert not [name for name in files.names(DIRECTORY) if name.endswith(".tmp")]
