"""Snapshot files: what is written is read, whole or not at all, whatever the disk does."""

from __future__ import annotations

import re
import struct
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from random import Random

import google_crc32c
import pytest

from raftkv.consensus.types import Index, NodeId, SnapshotMeta, Term
from raftkv.errors import StartError
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.storage.files import OsFiles
from raftkv.storage.segment import Owner
from raftkv.storage.snapshot import MAX_CHUNK_BYTES, SYNC_BYTES, DamagedSnapshotError, SnapshotReader
from raftkv.storage.snapshot_bytes import SnapshotEncoder
from raftkv.storage.snapshots import SnapshotFiles
from tests.storage.samples import CLUSTER, DIRECTORY, NODE, position

OWNER = Owner(CLUSTER, NODE)
EXTRA = b"members"
CHUNKS = [b"one", bytes(40), b"", b"three" * 9]
LARGE = [bytes(SYNC_BYTES), b"small"]
META = SnapshotMeta(Index(7), Term(3), 1234)


def snapshots(files: SimFiles | OsFiles, directory: Path = DIRECTORY) -> SnapshotFiles:
    return SnapshotFiles(files, directory, OWNER)


def taken(found: SnapshotFiles, meta: SnapshotMeta = META, chunks: list[bytes] = CHUNKS) -> Path:
    writer = found.begin(meta, EXTRA)
    for chunk in chunks:
        writer.append(chunk)
    return writer.finish()


def content(found: SnapshotFiles, meta: SnapshotMeta = META) -> tuple[SnapshotMeta, bytes, list[bytes]]:
    with found.open(meta) as reader:
        return reader.meta, reader.extra, list(reader)


@pytest.mark.parametrize("chunks", [[], CHUNKS, [bytes(SYNC_BYTES + 1)] * 2])
def test_what_was_written_is_read(chunks: list[bytes]) -> None:
    files = SimFiles(Random(1))
    path = taken(snapshots(files), chunks=chunks)
    assert path.name == "snapshot-00000000000000000007-00000000000000000003.snap"
    files.crash(Tear.LOST)
    found = snapshots(files)
    assert content(found) == (META, EXTRA, chunks)
    assert found.metas() == [META]
    found.check(META)


def test_on_the_real_file_system(tmp_path: Path) -> None:
    found = snapshots(OsFiles(), tmp_path)
    for index in range(1, 4):
        taken(found, position(index), [bytes([index]) * 3_000_000] * 4)
    assert found.metas() == [position(3), position(2), position(1)]
    assert content(found, position(2)) == (position(2), EXTRA, [bytes([2]) * 3_000_000] * 4)
    assert found.keep_newest(2) == 1
    abandoned = found.begin(position(4), b"")
    abandoned.append(b"x")
    assert found.remove_temporary() == 1
    abandoned.abort()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in found.paths())
    assert found.metas() == [position(3), position(2)]


def test_metas_are_by_index_and_then_by_term() -> None:
    found = snapshots(SimFiles(Random(1)))
    metas = [position(index, term) for index, term in [(100, 2), (9, 30), (9, 4)]]
    for meta in reversed(metas):
        taken(found, meta)
    assert found.metas() == metas
    with pytest.raises(StartError, match="reading a snapshot failed: No such file"):
        found.open(position(9, 5))


def test_every_cut_is_refused() -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    path = taken(found)
    data = files.read(path)
    for cut in range(len(data)):
        files.put(path, data[:cut])
        with pytest.raises(DamagedSnapshotError) as refused:
            found.check(META)
        assert refused.value.exit_code == 65
        assert re.match(rf"{path}: damaged at byte \d+: the file ends ", str(refused.value))
        assert refused.value.offset <= cut
    for more in (b"\0", data):
        files.put(path, data + more)
        with pytest.raises(DamagedSnapshotError, match="goes on after its end"):
            found.check(META)
    files.put(path, data)
    assert content(found) == (META, EXTRA, CHUNKS)


def test_every_flipped_byte_is_refused() -> None:
    """... and what was read before it is what was written."""
    files = SimFiles(Random(1))
    found = snapshots(files)
    path = taken(found)
    data = files.read(path)
    for at in range(len(data)):
        for byte in {data[at] ^ 1, data[at] ^ 0x80, 0, 255} - {data[at]}:
            files.put(path, data[:at] + bytes((byte,)) + data[at + 1 :])
            read: list[bytes] = []
            with pytest.raises(DamagedSnapshotError) as refused, found.open(META) as reader:
                read.extend(reader)
            assert read == CHUNKS[: len(read)]
            assert refused.value.offset <= at
            assert found.metas() in ([], [META])


def test_records_that_are_moved_repeated_or_left_out_are_refused() -> None:
    """Each is sound by itself: only the chain of checksums tells."""
    files = SimFiles(Random(1))
    found = snapshots(files)
    same = [b"a" * 20, b"b" * 20, b"b" * 20]
    path = taken(found, chunks=same)
    data = files.read(path)
    begin, size = 512 + 12 + len(EXTRA), 32
    head, one, two, three, end = (
        data[:begin], *(data[begin + n * size : begin + n * size + size] for n in range(3)), data[-28:]
    )  # fmt: skip
    assert head + one + two + three + end == data
    for parts in ([two, one, three], [one, three, two], [one, two, two], [one, two], [one, three], []):
        files.put(path, b"".join((head, *parts, end)))
        with pytest.raises(DamagedSnapshotError, match="doesn't match its checksum"):
            found.check(META)


def sealed(data: bytes, *records: tuple[int, bytes]) -> bytes:
    """``data`` with more records, chained as they should be."""
    chain = google_crc32c.value(data[:508]) if len(data) == 512 else struct.unpack_from("<I", data, 520)[0]
    for kind, payload in records:
        head = struct.pack("<II", len(payload), kind)
        chain = google_crc32c.extend(google_crc32c.extend(chain, head), payload)
        data += head + struct.pack("<I", chain) + payload
    return data


def test_sound_records_that_make_no_sense_are_refused() -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    path = taken(found, chunks=[])
    data = files.read(path)
    begun = data[: 512 + 12 + len(EXTRA)]
    for content_, message, exit_code in [
        (sealed(begun, (3, struct.pack("<QQ", 0, len(begun)))), None, 0),
        (sealed(begun, (3, struct.pack("<QQ", 1, len(begun)))), "0 chunks, but its end says otherwise", 65),
        (sealed(begun, (3, struct.pack("<QQ", 0, len(begun) + 1))), "its end says otherwise", 65),
        (sealed(begun, (1, b"")), "a record of type 1 in the middle", 65),
        (sealed(data[:512], (2, b"")), "begins with a record of type 2", 65),
        (
            sealed(begun, (9, b"")),
            f"byte {len(begun)}: a record of type 9 was written by a newer version",
            78,
        ),
        (
            begun + struct.pack("<III", MAX_CHUNK_BYTES + 1, 2, 0),
            f"a record of {MAX_CHUNK_BYTES + 1} bytes",
            65,
        ),
    ]:
        files.put(path, content_)
        if message is None:
            found.check(META)
            continue
        with pytest.raises(StartError, match=re.escape(message)) as refused:
            found.check(META)
        assert refused.value.exit_code == exit_code


@pytest.mark.parametrize(
    ("at", "new", "message", "exit_code"),
    [
        (8, b"\2", "format version 2 was written by a newer version", 78),
        (0, b"sqlite", "this is no snapshot of raftkv", 65),
        (20, b"\2", "says that its name is snapshot-00000000000000000002-", 65),
        (12, b"\2", "belongs to cluster 02", 78),
        (46, b"2", "belongs to node 'n2', and this is node 'n1'", 78),
    ],
)
def test_a_header_that_is_whole_and_wrong(at: int, new: bytes, message: str, exit_code: int) -> None:
    files = SimFiles(Random(1))
    path = taken(snapshots(files))
    data = files.read(path)
    header = data[:at] + new + data[at + len(new) : 508]
    files.put(path, header + google_crc32c.value(header).to_bytes(4, "little") + data[512:])
    with pytest.raises(StartError, match=message) as refused:
        snapshots(files).check(META)
    assert refused.value.exit_code == exit_code


def test_anybody_may_look() -> None:
    files = SimFiles(Random(1))
    path = taken(snapshots(files))
    with SnapshotReader(files, None, path) as reader:
        assert reader.owner == OWNER
    with pytest.raises(ValueError, match="owner"):
        SnapshotFiles(files, DIRECTORY, None).begin(META, b"")


def calls_to_take_one(before: list[SnapshotMeta]) -> int:
    """How many calls of ``Files`` that change anything a snapshot takes."""
    files = SimFiles(Random(1))
    for meta in before:
        taken(snapshots(files), meta)
    files.fuse = 1000
    taken(snapshots(files), chunks=LARGE)
    return 1000 - files.fuse


@pytest.mark.parametrize("tear", list(Tear))
@pytest.mark.parametrize("before", [[], [position(4)], [META]], ids=["first", "second", "again"])
def test_a_crash_at_every_call_leaves_it_whole_or_not_there(before: list[SnapshotMeta], tear: Tear) -> None:
    calls = calls_to_take_one(before)
    # create; header and extra, chunk; sync; chunk, end; sync; rename; and the directory's sync
    assert calls == 9
    for seed, fuse in product(range(3), range(calls + 1)):
        files = SimFiles(Random(seed))
        for meta in before:
            taken(snapshots(files), meta, [b"before"])
        files.fuse = fuse
        with pytest.raises(PowerCut) if fuse < calls else nullcontext():
            taken(snapshots(files), chunks=LARGE)
        files.crash(tear)
        found = snapshots(files)
        assert set(before) <= set(found.metas()) <= {*before, META}
        for meta in found.metas():
            chunks = content(found, meta)[2]
            assert chunks == LARGE if meta not in before else chunks in ([b"before"], LARGE)
        assert fuse < calls or content(found)[2] == LARGE
        found.remove_temporary()
        assert len(files.names(DIRECTORY)) == len(found.metas())
        taken(found)
        assert content(found) == (META, EXTRA, CHUNKS)


@pytest.mark.parametrize("nth", range(len(CHUNKS)))
def test_a_failing_write_ends_it_and_leaves_nothing(nth: int) -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    taken(found, position(4))
    writer = found.begin(META, EXTRA)
    for chunk in CHUNKS[:nth]:
        writer.append(chunk)
    files.fail_writes = 1
    with pytest.raises(StartError, match=r"\.tmp: writing a snapshot failed: Input/output error") as failed:
        writer.append(CHUNKS[nth])
    assert failed.value.exit_code == 74
    with pytest.raises(ValueError, match="failed before"):
        writer.append(b"")
    with pytest.raises(ValueError, match="failed before"):
        writer.finish()
    writer.abort()
    writer.abort()
    assert files.names(DIRECTORY) == [path.name for path in found.paths()]
    assert found.metas() == [position(4)]


def test_one_that_can_t_be_begun_leaves_nothing() -> None:
    files = SimFiles(Random(1))
    files.is_full = True
    with pytest.raises(StartError, match="writing a snapshot failed: No space left on device"):
        snapshots(files).begin(META, EXTRA)
    assert files.names(DIRECTORY) == []


def test_a_failing_sync_ends_it_and_is_not_repeated() -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    for chunks in ([b"small"], [bytes(SYNC_BYTES)]):
        files.fail_syncs = 1
        with pytest.raises(StartError, match="writing a snapshot failed: Input/output error"):
            taken(found, chunks=chunks)
        assert (files.fail_syncs, found.metas()) == (0, [])


def test_an_aborted_snapshot_leaves_nothing_and_a_finished_one_stays() -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    writer = found.begin(META, EXTRA)
    writer.append(b"one")
    writer.abort()
    assert files.names(DIRECTORY) == []
    writer = found.begin(META, EXTRA)
    assert writer.size_bytes == 512 + 12 + len(EXTRA)
    writer.finish()
    writer.abort()
    assert found.metas() == [META]
    with pytest.raises(ValueError, match="is finished"):
        writer.append(b"more")


def test_two_of_one_position_don_t_meet_in_one_file() -> None:
    found = snapshots(SimFiles(Random(1)))
    one, two = found.begin(META, b"1"), found.begin(META, b"2")
    one.append(b"one")
    two.append(b"two")
    two.finish()
    assert content(found) == (META, b"2", [b"two"])
    one.finish()
    assert content(found) == (META, b"1", [b"one"])


def test_a_chunk_too_large_is_refused_before_it_is_written() -> None:
    files = SimFiles(Random(1))
    writer = snapshots(files).begin(META, EXTRA)
    with pytest.raises(ValueError, match="a chunk has at most"):
        writer.append(bytes(MAX_CHUNK_BYTES + 1))


def test_one_that_was_set_aside_stays_so() -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    aside = found.set_aside(taken(found))
    files.crash(Tear.LOST)
    assert (found.paths(), files.names(DIRECTORY)) == ([], [aside.name])


def test_the_newest_are_kept_and_what_isn_t_ours_too() -> None:
    files = SimFiles(Random(1))
    found = snapshots(files)
    files.put(DIRECTORY / "snapshot-notes.snap", b"not ours")
    for index in range(1, 6):
        taken(found, position(index))
    found.set_aside(found.paths()[0])
    found.set_aside(found.paths()[3])
    assert found.keep_newest(4) == 0, "there are three"
    assert found.keep_newest(2) == 2
    files.crash(Tear.LOST)
    assert found.metas() == [position(4), position(3)]
    assert [name[-30:] for name in files.names(DIRECTORY)][2:] == [
        "0000000000000000001.snap.damaged"[-30:], "snapshot-notes.snap"
    ]  # fmt: skip
    assert any(name.startswith("snapshot-00000000000000000005") for name in files.names(DIRECTORY))


def test_a_read_that_fails_is_not_damage() -> None:
    files = SimFiles(Random(1))
    taken(snapshots(files))
    with snapshots(files).open(META) as reader:
        files.fail_reads = 1
        with pytest.raises(StartError, match="reading a snapshot failed: Input/output error") as failed:
            next(reader)
    assert failed.value.exit_code == 74
    assert not isinstance(failed.value, DamagedSnapshotError)


def test_another_node_s_snapshot_is_refused() -> None:
    files = SimFiles(Random(1))
    taken(snapshots(files))
    with pytest.raises(StartError, match="belongs to node 'n1', and this is node 'n2'"):
        SnapshotFiles(files, DIRECTORY, Owner(CLUSTER, NodeId("n2"))).open(META)


def test_a_stream_is_the_file_byte_for_byte() -> None:
    files = SimFiles(Random(1))
    encoder = SnapshotEncoder(OWNER, META)
    stream = b"".join([encoder.begin(EXTRA), *map(encoder.chunk, CHUNKS), encoder.end()])
    assert stream == files.read(taken(snapshots(files)))


def test_a_file_of_any_name_can_be_read() -> None:
    files = SimFiles(Random(1))
    path = Path("any-name")
    files.put(path, files.read(taken(snapshots(files))))
    with SnapshotReader.of(files.open(path), path) as reader:
        assert (reader.owner, reader.meta, list(reader)) == (OWNER, META, CHUNKS)
    with pytest.raises(DamagedSnapshotError, match="its name is snapshot-0"):
        SnapshotReader(files, None, path)


@pytest.mark.parametrize(("at", "value"), [(44, 65), (45, 0xFF), (44, 0)])
def test_a_header_without_a_name_is_damaged(at: int, value: int) -> None:
    files = SimFiles(Random(1))
    path = taken(snapshots(files))
    data = bytearray(files.read(path))
    data[at] = value
    data[508:512] = struct.pack("<I", google_crc32c.value(bytes(data[:508])))
    files.put(path, bytes(data))
    with pytest.raises(DamagedSnapshotError, match="byte 44: the node id is not a name"):
        snapshots(files).check(META)
