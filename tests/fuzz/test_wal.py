"""Segments of any content under sound checksums: a start recovers, or refuses in one line.

So what is behind the checksums is reached: kinds, lengths, numbers and names are drawn at random.
"""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import google_crc32c
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftkv.consensus import Log
from raftkv.errors import StartError
from raftkv.storage.inspect import dump, verify
from raftkv.storage.record import (
    COMMIT_RECORD_BYTES,
    MAX_PAYLOAD_BYTES,
    Commit,
    RecordType,
    encode,
    encode_boot,
    encode_commit,
)
from raftkv.storage.segment import HEADER_BYTES, SegmentHeader, decode_header, encode_header
from tests.fuzz.budget import budget
from tests.fuzz.mutations import mutated
from tests.storage.faulty_files import FaultyFiles
from tests.storage.samples import DIRECTORY, entry, open_wal, write

EXITS = {65, 78}
SALT = 7


def first_header(**fields: Any) -> SegmentHeader:
    """That of a node's first segment, but for ``fields``."""
    files = FaultyFiles()
    open_wal(files)
    (path,) = files.paths
    header = decode_header(files.read(path), path)
    sound = {"owner": header.owner, "number": 1, "first_index": 1, "first_batch": 1, "salt": SALT}
    return SegmentHeader(**{**sound, **fields})


HEADER = first_header()


def check(files: FaultyFiles) -> bool:
    """Open, verify and dump ``files``; whether they open. All agree, and one start prepares the next."""
    before = {path: files.read(path) for path in files.paths}
    report = verify(DIRECTORY, files)
    dumped = refusal = None
    try:
        dumped = list(dump(DIRECTORY, files))
    except StartError as error:
        refusal = error
    try:
        _, recovered = open_wal(files)
    except StartError as refused:
        told = refused
    else:
        assert report.damage is None
        assert dumped is not None
        for state in recovered.groups.values():
            Log(state.entries, state.boundary)  # the core takes it as it is
            assert state.hard_state.current_term >= 0
        _, again = open_wal(files)
        assert again.groups == recovered.groups
        assert again.incarnation == recovered.incarnation + 1
        return True
    assert told.exit_code in EXITS
    assert "\n" not in str(told)
    assert str(DIRECTORY) in str(told)
    assert len(str(told)) < 1000
    assert {path: files.read(path) for path in files.paths} == before, "a refused start changes nothing"
    assert report.damage == str(told) or "belongs to" in str(told), "verify has no owner to compare with"
    assert refusal is None or refusal.exit_code in EXITS
    return False


def segment(content: bytes, header: bytes | None = None) -> FaultyFiles:
    files = FaultyFiles()
    files.put(DIRECTORY / HEADER.name, (encode_header(HEADER) if header is None else header) + content)
    return files


# -- records -----------------------------------------------------------------------------------------------

numbers = st.integers(0, 5) | st.sampled_from([2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
payloads = (
    st.binary(max_size=40)
    | st.binary(max_size=40).map(lambda tail: bytes(600) + tail)
    | st.builds(
        lambda index, term, kind, time_ms, data: struct.pack("<QQBQ", index, term, kind, time_ms) + data,
        numbers,
        numbers,
        st.integers(0, 2),
        numbers,
        st.binary(max_size=20),
    )
    | st.builds(lambda term, vote: struct.pack("<Q", term) + vote, numbers, st.binary(max_size=5))
)
groups = st.integers(0, 2) | st.just(2**32 - 1)
KINDS = [*RecordType, RecordType.ENTRY, RecordType.ENTRY, 9]


@st.composite
def follows(draw: st.DrawFn) -> bytes:
    """An entry that is likely to follow the ones before it."""
    fixed = struct.pack("<QQBQ", draw(st.integers(1, 4)), draw(st.integers(0, 3)), draw(st.integers(0, 1)), 0)
    return encode(
        SALT, RecordType.ENTRY, draw(st.sampled_from([0, 0, 0, 1])), fixed, draw(st.binary(max_size=9))
    )


records = follows() | st.builds(
    lambda kind, group, payload: encode(SALT, kind, group, payload or b"\0"),
    st.sampled_from(KINDS),
    groups,
    payloads,
)


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Some batches in order, the first one a BOOT; now and then a commit that tells another story."""
    content = encode_boot(SALT, draw(st.just(1) | numbers)) + encode_commit(SALT, Commit(1, 1, 0))
    for batch in range(2, 2 + draw(st.integers(0, 4))):
        made = draw(st.lists(records, max_size=4))
        number = draw(st.sampled_from([batch] * 9 + [0, batch + 1, 2**48 - 1]))
        count = draw(st.sampled_from([len(made)] * 9 + [0, 2**24 - 1]))
        content += b"".join(made) + encode_commit(
            SALT, Commit(number, count, draw(st.sampled_from([0, 0, 9])))
        )
    return content


@given(batches())
@budget(200)
def test_records_of_any_content(content: bytes) -> None:
    check(segment(content))


@given(mutated(batches()))
@budget(100)
def test_records_with_broken_bytes(content: bytes) -> None:
    check(segment(content))


@given(st.binary(max_size=2000))
@budget(50)
def test_arbitrary_files(content: bytes) -> None:
    files = FaultyFiles()
    files.put(DIRECTORY / HEADER.name, content)
    assert not check(files)
    check(segment(content))


# -- headers -----------------------------------------------------------------------------------------------


def sealed(head: bytes) -> bytes:
    """``head`` as a segment's header with a sound checksum."""
    head = head.ljust(HEADER_BYTES - 4, b"\0")[: HEADER_BYTES - 4]
    return head + struct.pack("<I", google_crc32c.value(head))


@given(mutated(st.just(encode_header(HEADER)[:120]), most=2))
@example(encode_header(HEADER)[:48] + b"\0" + bytes(64))
@example(encode_header(HEADER)[:48] + b"\2" + b"\xff\xfe")
@example(encode_header(HEADER)[:48] + b"\x40" + b"x" * 64)
@example(encode_header(HEADER)[:48] + b"\xff" + b"x" * 64)
@budget(150)
def test_headers_of_any_content(head: bytes) -> None:
    check(segment(encode_boot(SALT, 1) + encode_commit(SALT, Commit(1, 1, 0)), sealed(head)))


NAMES = st.from_regex(r"wal-[0-9]{10}-[0-9]{20}\.log(\.tmp)?", fullmatch=True) | st.builds(
    "wal-{:010}-{:020}.log".format, st.integers(0, 4), st.integers(0, 4)
)


@given(st.dictionaries(NAMES, mutated(st.just(encode_header(HEADER))) | st.just(b""), max_size=3))
@budget(60)
def test_names_of_any_number(contents: dict[str, bytes]) -> None:
    files = segment(encode_boot(SALT, 1) + encode_commit(SALT, Commit(1, 1, 0)))
    for name, content in contents.items():
        if name != HEADER.name:
            files.put(DIRECTORY / name, content)
    opened = check(files)
    assert opened == all(name.endswith(".tmp") or name == HEADER.name for name in contents)


# -- what was found ----------------------------------------------------------------------------------------


def small_log() -> tuple[FaultyFiles, bytes, int]:
    """A log of one entry of term 3, its bytes, and its salt."""
    files = FaultyFiles()
    wal, _ = open_wal(files)
    wal.commit([write(entry(1, term=3), term=3)])
    (path,) = files.paths
    data = files.read(path)
    return files.copy(), data, decode_header(data, path).salt


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            lambda salt: encode(salt, RecordType.ENTRY, 0, struct.pack("<QQBQ", 2, 2, 1, 0)),
            "entry 2 of group 0 has term 2, and the one before it 3",
        ),
        (lambda salt: encode_boot(salt, 2**31), "incarnation 2147483648 is more than a node can have"),
    ],
    ids=["a term that goes down", "an incarnation without a successor"],
)
def test_records_that_no_node_wrote(record: Any, words: str) -> None:
    files, data, salt = small_log()
    (path,) = files.paths
    files.put(path, data + record(salt) + encode_commit(salt, Commit(3, 1, 0)))
    with pytest.raises(StartError, match=words) as refused:
        open_wal(files)
    assert refused.value.exit_code == 65
    assert not check(files)


@pytest.mark.parametrize(
    ("length", "name"), [(0, b""), (2, b"\xff\xfe"), (65, b"x" * 64), (200, b"x" * 64)], ids=str
)
def test_a_header_whose_owner_has_no_name(length: int, name: bytes) -> None:
    files = segment(b"", sealed(encode_header(HEADER)[:48] + bytes([length]) + name))
    with pytest.raises(StartError, match="damaged at byte 48: the node id is not a name") as refused:
        open_wal(files)
    assert refused.value.exit_code == 65


def test_a_length_beyond_the_file_takes_no_memory() -> None:
    """The header's checksum is sound: nothing but the file's own size bounds what is set aside."""
    sound = encode_boot(SALT, 1) + encode_commit(SALT, Commit(1, 1, 0))
    for length in (MAX_PAYLOAD_BYTES, 2**32 - 1, 2**31):
        head = struct.pack("<IIIBBH", length, 0, 0, RecordType.ENTRY, 1, 0)
        huge = head + struct.pack("<I", google_crc32c.extend(SALT, head)) + b"x" * 1000
        files = segment(sound + huge)
        tracemalloc.start()
        try:
            _, recovered = open_wal(files)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert recovered.dropped_tail_bytes == len(huge)
        assert len(huge) > COMMIT_RECORD_BYTES
        assert peak < 1 << 20
