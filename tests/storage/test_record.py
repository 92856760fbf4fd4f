"""The record format: exact bytes, round trips, and every damaged byte found."""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.consensus.types import Entry, EntryKind, GroupId, HardState, Index, NodeId, Term
from raftkv.storage import record as r
from tests.storage.samples import entry

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
# Long runs of zeros are where the format is at its weakest.
DATA = st.one_of(
    st.binary(max_size=200), st.builds(lambda n, b: bytes(n) + b, st.integers(0, 2000), st.binary(max_size=9))
)
ENTRIES = st.builds(
    lambda index, term, kind, time_ms, data: Entry(Index(index), Term(term), kind, time_ms, data),
    U64, U64, st.sampled_from(EntryKind), U64, DATA,
)  # fmt: skip
HARD_STATES = st.builds(
    lambda term, vote: HardState(Term(term), vote),
    U64,
    st.none() | st.just(NodeId("n1")) | st.just(NodeId("ü")),
)
COMMITS = st.builds(r.Commit, st.integers(0, 2**48 - 1), st.integers(0, 2**24 - 1), st.integers(0, 2**24 - 1))


def test_an_entry_byte_for_byte() -> None:
    """docs/wal.md's table. NB: a change here is a change of the format: it needs a new version."""
    one = Entry(Index(7), Term(3), EntryKind.BATCH, 1000, b"hello")
    encoded = r.encode_entry(0xA1B2C3D4, GroupId(5), one)
    payload = (
        b"\x07\0\0\0\0\0\0\0"
        b"\x03\0\0\0\0\0\0\0"
        b"\x01"
        b"\xe8\x03\0\0\0\0\0\0"
        b"hello"
    )  # index, term, kind, time_ms, data
    body = payload + bytes(14)
    header = (
        (30).to_bytes(4, "little") + google_crc32c.value(body).to_bytes(4, "little") + b"\5\0\0\0\3\0\0\0"
    )
    header_crc = google_crc32c.extend(0xA1B2C3D4, header).to_bytes(4, "little")
    assert encoded == header + header_crc + body
    assert len(encoded) == 64


def test_a_commit_is_one_unit_of_alignment() -> None:
    encoded = r.encode_commit(1, r.Commit(2**48 - 1, 2**24 - 1, 2**24 - 1))
    assert len(encoded) == r.COMMIT_RECORD_BYTES == r.ALIGNMENT_BYTES
    assert r.SECTOR_BYTES % r.ALIGNMENT_BYTES == 0
    assert encoded[20:] == b"\xff" * 12


@given(U32, U32, ENTRIES, HARD_STATES, COMMITS)
def test_round_trip(salt: int, group: int, one: Entry, hard_state: HardState, commit: r.Commit) -> None:
    incarnation = one.time_ms
    parts = [
        r.encode_entry(salt, GroupId(group), one),
        r.encode_hard_state(salt, GroupId(group), hard_state),
        r.encode_boot(salt, incarnation),
        r.encode_commit(salt, commit),
    ]
    data = b"".join(parts)
    read, offset = [], 0
    while offset < len(data):
        read.append(r.read_record(data, offset, salt))
        offset = read[-1].end
    assert [p.offset % 32 for p in read] == [0, 0, 0, 0]
    assert [p.end - p.offset for p in read] == [len(p) for p in parts]
    assert [p.group for p in read] == [group, group, 0, 0]
    assert r.decode_entry(read[0]) == one
    assert r.decode_hard_state(read[1]) == hard_state
    assert r.decode_boot(read[2]) == incarnation
    assert r.decode_commit(read[3]) == commit


@given(U32, ENTRIES, st.data())
def test_one_damaged_byte_is_found(salt: int, one: Entry, data: st.DataObject) -> None:
    encoded = bytearray(r.encode_entry(salt, GroupId(0), one))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(r.BadRecordError) as bad:
        r.read_record(bytes(encoded), 0, salt)
    wanted = r.Problem.HEADER_DAMAGED if at < r.HEADER_BYTES else r.Problem.PAYLOAD_DAMAGED
    assert bad.value.problem is wanted


@given(U32, ENTRIES, st.data())
def test_a_cut_record_says_so(salt: int, one: Entry, data: st.DataObject) -> None:
    encoded = r.encode_entry(salt, GroupId(0), one)
    at = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(r.BadRecordError) as bad:
        r.read_record(encoded[:at], 0, salt)
    if at == 0:
        assert bad.value.problem is r.Problem.NO_COMMIT
    elif at < r.HEADER_BYTES:
        assert bad.value.problem is r.Problem.HEADER_CUT
    else:
        assert (bad.value.problem, bad.value.end) == (r.Problem.PAYLOAD_CUT, len(encoded))


def test_zeros_are_no_record() -> None:
    for salt in (0, 1, 2**32 - 1):
        with pytest.raises(r.BadRecordError):
            r.read_record(bytes(512), 0, salt)


def test_commits_are_found_between_rubble() -> None:
    commits = [r.encode_commit(9, r.Commit(n, n, 0)) for n in (5, 6)]
    data = b"\xff" * 64 + commits[0] + bytes(96) + commits[1] + b"\xff" * 7
    found = [(record.offset, commit.batch) for record, commit in r.find_commits(data, 32, 9)]
    assert found == [(64, 5), (192, 6)]
    assert list(r.find_commits(data, 224, 9)) == []


def test_only_sound_aligned_commits_of_this_segment_are_found() -> None:
    commit = r.encode_commit(9, r.Commit(5, 1, 0))
    assert list(r.find_commits(commit, 0, 8)) == []  # another segment's salt
    assert list(r.find_commits(b"\xff" * 16 + commit, 0, 9)) == []
    for at in range(len(commit)):
        assert list(r.find_commits(commit[:at] + bytes((commit[at] ^ 4,)) + commit[at + 1 :], 0, 9)) == []


def sectors_within(start: int, end: int) -> list[range]:
    inside = range(start, end)
    return [range(at, at + 512) for at in range(0, end, 512) if at in inside and at + 511 in inside]


@given(st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=3))), st.integers(0, 40))
def test_sparse_and_zero_sectors(runs: list[tuple[int, bytes]], start_unit: int) -> None:
    start = start_unit * 32
    batch = b"".join(bytes(zeros) + tail for zeros, tail in runs)
    file = b"\xff" * start + batch + b"\xff" * 600
    sectors = sectors_within(start, start + len(batch))
    sparse = [s for s in sectors if sum(file[i] != 0 for i in s) <= 1]
    zero = [s for s in sectors if all(file[i] == 0 for i in s)]
    assert r.sparse_sectors(batch, start) == len(sparse)
    assert r.zero_sectors(file, start, start + len(batch)) == len(zero)


def raw(record_type: int, payload: bytes) -> r.Record:
    return r.Record(record_type, 0, len(payload), payload, 0, 32)


@pytest.mark.parametrize(
    ("decode", "payload"),
    [
        (r.decode_entry, bytes(24)),
        (r.decode_entry, bytes(16) + b"\x63" + bytes(8)),  # a kind that doesn't exist yet
        (r.decode_hard_state, bytes(7)),
        (r.decode_hard_state, bytes(8) + b"\xff"),
        (r.decode_boot, bytes(9)),
        (r.decode_commit, bytes(13)),
    ],
)
def test_a_payload_of_another_version_is_refused(
    decode: Callable[[r.Record], object], payload: bytes
) -> None:
    with pytest.raises(r.UnknownFormatError):
        decode(raw(1, payload))


def test_sizes_are_bounded() -> None:
    with pytest.raises(ValueError, match="must be 1-"):
        r.encode(0, r.RecordType.BOOT, 0, b"")
    with pytest.raises(ValueError, match="must be 1-"):
        r.encode_entry(0, GroupId(0), entry(1, bytes(r.MAX_PAYLOAD_BYTES)))
