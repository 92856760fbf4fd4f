"""Torn or damaged: cuts and lost sectors of the last batch are recovered, a bad byte anywhere is refused.

Exhaustive over small logs: every byte, every cut, every set of lost sectors. The values include the ones that
make the difference hard: long zeros, zeros with one other byte, and copies of the log itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import google_crc32c
import pytest

from raftkv.consensus.types import Entry, Write
from raftkv.errors import StartError
from raftkv.storage.record import (
    Commit,
    RecordType,
    encode,
    encode_boot,
    encode_boundary,
    encode_commit,
    encode_entry,
    encode_position,
    find_commits,
)
from raftkv.storage.scan import SegmentScan
from raftkv.storage.segment import HEADER_BYTES, decode_header, encode_header
from tests.storage.faulty_files import FaultyFiles, split
from tests.storage.samples import G0, entry, indexes, open_wal, position, write

DENSE = Random(1).randbytes(1400).replace(b"\0", b"\1")
ONE_BYTE_A_SECTOR = (bytes(511) + b"\1") * 3
VALUES = {
    "small": b"value",
    "dense": DENSE,
    "zeros": bytes(1400),
    "one-byte-a-sector": ONE_BYTE_A_SECTOR,
    "mixed": DENSE[:400] + bytes(1024) + b"\x80\x80" + bytes(600),
}


def small_log(last: Write, segment_bytes: int = 1 << 20, before: int = 2) -> FaultyFiles:
    """Some committed batches and then ``last``."""
    files = FaultyFiles(seed=3)
    wal, _ = open_wal(files, segment_bytes=segment_bytes)
    wal.commit([write(term=1, vote="n1")])
    for index in range(1, before + 1):
        wal.commit([write(entry(index, DENSE[:40] + bytes(60)))])
    wal.commit([last])
    return files.copy()


def last_segment(files: FaultyFiles) -> tuple[Path, bytes]:
    path = max(path for path in files.paths if path.suffix == ".log")
    return path, files.read(path)


def last_batch(files: FaultyFiles) -> tuple[Path, bytes, int]:
    """The last segment, its bytes, and where its last batch starts."""
    path, data = last_segment(files)
    scan = SegmentScan(path, data, decode_header(data, path), is_last=True)
    start = HEADER_BYTES
    for batch in scan.batches():
        start = (batch.records or [batch.commit])[0].offset
    assert scan.valid_bytes == len(data)
    return path, data, start


def flips(byte: int) -> Iterator[int]:
    """What a byte may become: one bit else, and zero, which is what could look like a lost sector."""
    yield from sorted({byte ^ 1, 0} - {byte})


def refusal(files: FaultyFiles) -> StartError:
    with pytest.raises(StartError) as refused:
        open_wal(files)
    return refused.value


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_the_last_batch_cut_at_every_byte(value: bytes) -> None:
    files = small_log(write(entry(3, value), entry(4, b"x" * 30)))
    path, data, start = last_batch(files)
    for cut in range(start, len(data)):
        files.put(path, data[:cut])
        _, recovered = open_wal(files)
        assert indexes(recovered) == [1, 2], cut
        assert recovered.dropped_tail_bytes == cut - start


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_every_byte_of_every_segment_flipped_is_refused(value: bytes) -> None:
    files = small_log(write(entry(3, value), entry(4, b"x" * 30)), segment_bytes=1000, before=3)
    paths = sorted(files.paths)
    assert len(paths) == 2
    for path in paths if value == VALUES["small"] else paths[1:]:  # the first is the same for all
        data = files.read(path)
        for at in range(len(data)):
            for byte in flips(data[at]):
                files.put(path, data[:at] + bytes((byte,)) + data[at + 1 :])
                error = refusal(files)
                assert error.exit_code in (65, 78), (at, byte)
                found = re.search(rf"^{path}: damaged at byte (\d+): .*never restart it empty", str(error))
                assert found, error
                assert "\n" not in str(error)
                # The offset is that of the record, the header, that holds the bad byte.
                assert 0 <= at - int(found[1]) < max(HEADER_BYTES, len(value) + 96)
        files.put(path, data)
    assert indexes(open_wal(files)[1]) == [1, 2, 3, 4]


def test_the_first_batch_after_a_header_is_never_torn() -> None:
    """It was durable before the file had its name."""
    files = FaultyFiles()
    open_wal(files)
    path, data, start = last_batch(files)
    assert start == HEADER_BYTES
    for cut in range(len(data)):
        files.put(path, data[:cut])
        assert refusal(files).exit_code == 65
    for at in range(len(data)):
        for byte in flips(data[at]):
            files.put(path, data[:at] + bytes((byte,)) + data[at + 1 :])
            assert refusal(files).exit_code == 65


def test_a_cut_segment_that_is_not_the_last_is_refused() -> None:
    files = small_log(write(entry(3, DENSE)), segment_bytes=600)
    first = min(files.paths)
    data = files.read(first)
    for cut in (*range(HEADER_BYTES - 2, HEADER_BYTES + 3), len(data) - 33, len(data) - 32, len(data) - 1):
        files.put(first, data[:cut])
        assert refusal(files).exit_code == 65
    files.put(first, data + b"more")
    assert "damaged at byte" in str(refusal(files))


def lose(data: bytes, lost: tuple[tuple[int, int], ...]) -> bytes:
    torn = bytearray(data)
    for start, end in lost:
        torn[start:end] = bytes(end - start)
    return bytes(torn)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_every_set_of_lost_sectors_of_the_last_batch(name: str, before: int) -> None:
    """The earlier batches are there, whatever was lost, and nothing of the last one. Every sector counts:
    none is all zeros by nature."""
    files = small_log(write(entry(before + 1, VALUES[name]), entry(before + 2, b"x" * 30)), before=before)
    path, data, start = last_batch(files)
    sectors = split(start, len(data))
    for count in range(1, len(sectors) + 1):
        for lost in itertools.combinations(sectors, count):
            files.put(path, lose(data, lost))
            _, recovered = open_wal(files)
            earlier = list(range(1, before + 1))
            assert indexes(recovered) == earlier, lost


def test_a_sector_that_reads_as_zeros_before_a_later_commit_is_refused() -> None:
    """Not torn: when the later batch was written, this one was durable."""
    files = small_log(write(entry(5, DENSE)), before=4)
    path, data, start = last_batch(files)
    for sector in split(HEADER_BYTES, start):
        files.put(path, lose(data, (sector,)))
        error = refusal(files)
        assert error.exit_code == 65
        assert str(error).startswith(f"{path}: damaged at byte ")
        assert "was committed after it" in str(error) or sector[0] < HEADER_BYTES + 64, "the first batch"


# A long run of every byte there is, so that no mask helps, and the zeros at a sector's length.
DEFEATS_THE_MASK = b"".join(bytes((byte,)) * (130 if byte else 1600) for byte in range(256))


def test_a_value_that_defeats_the_mask_is_still_safe() -> None:
    """A lost sector may be taken for damage then, but damage never for a lost sector."""
    value = DEFEATS_THE_MASK[:512] + b"\1" + DEFEATS_THE_MASK[512:]
    files = small_log(write(entry(3, value)))
    path, data, start = last_batch(files)
    sparse = [s for s in split(start, len(data)) if sum(map(bool, data[slice(*s)])) <= 1]
    assert len(sparse) == 2
    assert [c.sparse_sectors for _, c in find_commits(data, start, decode_header(data, path).salt)] == [2]
    for at in range(*sparse[0]) if any(data[slice(*sparse[0])]) else range(*sparse[1]):
        for byte in flips(data[at]):
            files.put(path, data[:at] + bytes((byte,)) + data[at + 1 :])
            assert refusal(files).exit_code == 65
    files.put(path, lose(data, tuple(split(start, len(data))[10:20])))
    assert indexes(open_wal(files)[1]) == [1, 2]


def test_a_value_that_imitates_the_log_does_not_make_a_torn_batch_look_damaged() -> None:
    """Values are the clients'. A copy of this very segment (a backup kept in the store) holds sound COMMITs,
    but of earlier batches; any other may hold a later batch's number, but not this segment's salt."""
    files = small_log(write(entry(3, DENSE)))
    path, data, start = last_batch(files)
    assert decode_header(data, path).salt != 0
    forged = b"".join(encode_commit(0, Commit(batch, 1, 0)) for batch in range(12))
    value = bytes(-(start + 20 + 25) % 32) + forged + data[HEADER_BYTES:start]
    files = small_log(write(entry(3, value)))
    path, data, start = last_batch(files)
    batches = [commit.batch for _, commit in find_commits(data, start, decode_header(data, path).salt)]
    assert batches == [1, 2, 3, 4, 5], "the copied ones, well aligned, and the batch's own"
    for cut in range(start + 32, len(data), 7):
        files.put(path, data[:cut])
        assert indexes(open_wal(files)[1]) == [1, 2]
    for at in range(start, len(data), 3):
        files.put(path, data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
        assert refusal(files).exit_code == 65


def test_garbage_after_the_last_batch_is_refused_and_zeros_are_the_end() -> None:
    """What a crash leaves is a prefix with zeros in it, never something else."""
    files = small_log(write(entry(3)))
    path, data, _ = last_batch(files)
    files.put(path, data + b"\xee" * 64)
    assert refusal(files).exit_code == 65
    files.put(path, data + bytes(5000))
    _, recovered = open_wal(files)
    assert (indexes(recovered), recovered.dropped_tail_bytes) == ([1, 2, 3], 0)


@pytest.mark.parametrize("zeros", [1, 19, 20, 31, 512, 5000])
def test_zeros_after_a_whole_batch_are_the_end_of_any_segment(zeros: int) -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files, segment_bytes=600)
    for index in range(1, 7):
        wal.commit([write(entry(index))])
    paths = sorted(files.paths)
    assert len(paths) > 2
    for path in paths:
        files.put(path, files.read(path) + bytes(zeros))
    _, recovered = open_wal(files, segment_bytes=600)
    assert (indexes(recovered), recovered.dropped_tail_bytes) == ([1, 2, 3, 4, 5, 6], 0)


def test_zeros_where_batches_were_are_no_end_while_a_later_segment_tells_of_them() -> None:
    files = FaultyFiles()
    wal, _ = open_wal(files, segment_bytes=600)
    for index in range(1, 7):
        wal.commit([write(entry(index))])
    path = min(files.paths)
    data = files.read(path)
    starts = [record.end for record, _ in find_commits(data, HEADER_BYTES, decode_header(data, path).salt)]
    assert len(starts) > 1
    for start in starts[:-1]:
        files.put(path, data[:start] + bytes(len(data) - start))
        assert refusal(files).exit_code == 65


def sealed(data: bytes, record: bytes, batch: int, salt: int, records: int = 1) -> bytes:
    return data + record + encode_commit(salt, Commit(batch, records, 0))


def entry_record(salt: int, one: Entry) -> bytes:
    return encode_entry(salt, G0, one)


def test_sound_records_that_make_no_sense_are_refused() -> None:
    files = small_log(write(entry(3)))
    path, data = last_segment(files)
    salt = decode_header(data, path).salt
    for content, message in [
        (
            sealed(data, encode_position(salt, G0, position(3, 2)), 6, salt),
            "stands at 3@2 here, and ends at 3@1",
        ),
        (
            sealed(data, encode_boundary(salt, G0, position(0)), 6, salt),
            "a boundary at 0@1 of group 0 follows",
        ),
        (sealed(data, entry_record(salt, entry(9)), 5 + 1, salt), "entry 9 of group 0 follows entry 3"),
        (sealed(data, entry_record(salt, entry(0)), 5 + 1, salt), "entry 0 of group 0 follows entry 3"),
        (sealed(data, encode_boot(salt, 0), 5 + 1, salt), "incarnation 0 follows 1"),
        (sealed(data, encode_boot(salt, 2), 5 + 2, salt), "batch 6 expected, found 7"),
        (sealed(data, encode_boot(salt, 2), 5 + 1, salt, records=2), "commit record says 2"),
    ]:
        files.put(path, content)
        error = refusal(files)
        assert message in str(error)
        assert error.exit_code == 65


def test_a_segment_that_skips_batches_is_refused() -> None:
    files = small_log(write(entry(3)))
    path, data = last_segment(files)
    header = dataclasses.replace(decode_header(data, path), number=2, first_index=4, first_batch=9)
    second = path.with_name(header.name)
    files.put(second, sealed(encode_header(header), encode_boot(header.salt, 1), 9, header.salt))
    assert f"{second}: damaged at byte 0: begins with batch 9, and the segment before it ends at 5" in str(
        refusal(files)
    )
    header = dataclasses.replace(header, first_batch=6, first_index=5)
    files.unlink(second)
    second = path.with_name(header.name)
    files.put(second, sealed(encode_header(header), encode_boot(header.salt, 1), 6, header.salt))
    assert "begins at index 5, and the log before it ends at 3" in str(refusal(files))


def test_a_newer_version_s_files_are_refused_as_such() -> None:
    files = small_log(write(entry(3)))
    path, data = last_segment(files)
    salt = decode_header(data, path).salt
    unknown_type = encode(salt, 77, 0, b"from the future")  # type: ignore[arg-type]
    unknown_kind = encode(salt, RecordType.ENTRY, 0, b"\4" + bytes(15) + b"\x63" + bytes(8))
    header = struct.pack("<IIIBBH", 12, google_crc32c.value(b"x" * 12), 0, RecordType.BOOT, 0, 1)
    unknown_flag = header + struct.pack("<I", google_crc32c.extend(salt, header)) + b"x" * 12
    for content, what in [
        (sealed(data, unknown_flag, 6, salt), "a record of type 257"),
        (sealed(data, unknown_type, 6, salt), "a record of type 77"),
        (sealed(data, unknown_kind, 6, salt), "an entry of kind 99"),
    ]:
        files.put(path, content)
        error = refusal(files)
        assert f"byte {len(data)}: {what} was written by a newer version" in str(error)
        assert error.exit_code == 78


@pytest.mark.parametrize(
    ("at", "new", "message", "exit_code"),
    [
        (8, b"\2", "format version 2 was written by a newer version", 78),
        (0, b"sqlite", "this is no WAL segment of raftkv", 65),
        (20, b"\2", "says that its name is", 65),
    ],
)
def test_a_header_that_is_whole_and_wrong(at: int, new: bytes, message: str, exit_code: int) -> None:
    files = small_log(write(entry(3)))
    path, data = last_segment(files)
    header = data[:at] + new + data[at + len(new) : HEADER_BYTES - 4]
    checksum = google_crc32c.value(header).to_bytes(4, "little")
    files.put(path, header + checksum + data[HEADER_BYTES:])
    error = refusal(files)
    assert message in str(error)
    assert error.exit_code == exit_code
