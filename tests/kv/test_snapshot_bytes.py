"""The bytes of a machine's chunks, which are in files; and bytes that are no machine's."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from struct import pack
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.commands import encode_delete, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import PutResult
from raftkv.kv.session import BatchId
from raftkv.kv.snapshot import UnknownVersion

GOLDEN = [
    "94 01 03 02 02",
    "94 a26e31 02 03 c410 0400000000000000 0700000000000000",
    "94 a26e32 01 01 c400",
    "94"
    " c40161 c41d 0100000000000000 0200000000000000 0200000000000000 00000000 79"
    " c40162 c427 0300000000000000 0300000000000000 0100000000000000 0b000000 746578742f706c61696e 7a",
]


def sample() -> KvMachine:
    machine = KvMachine()
    for batch, commands in [
        (BatchId("n2", 1, 0, 1), []),
        (BatchId("n1", 2, 4, 1), [encode_put(b"a", b"x"), encode_put(b"a", b"y")]),
        (BatchId("n1", 2, 7, 3), [encode_put(b"b", b"z", "text/plain"), encode_delete(b"c")]),
    ]:
        machine.apply(0, machine.seal(batch, commands))
    return machine


def row(create: int = 1, mod: int = 2, version: int = 1, size: int = 0, rest: bytes = b"v") -> bytes:
    return pack("<QQQI", create, mod, version, size) + rest


def test_golden_bytes() -> None:
    assert [chunk.hex() for chunk in sample().export()] == [bytes.fromhex(line).hex() for line in GOLDEN]


HEAD = [1, 3, 2, 1]
SESSION = ["n1", 2, 3, pack("<QQ", 4, 7)]
ROWS = [b"a", row(1, 2, 2), b"b", row(3, 3, 1, 11, b"text/plainz")]


def feed(*chunks: Any) -> KvMachine:
    restore = KvMachine().restorer()
    for chunk in chunks:
        restore.feed(chunk if isinstance(chunk, bytes) else msgpack.packb(chunk))
    return restore.finish()


def test_what_the_broken_ones_are_made_of_is_sound() -> None:
    assert len(feed(HEAD, SESSION, ROWS).store) == 2
    assert len(feed(HEAD, SESSION, ROWS[:2], ROWS[2:]).store) == 2
    assert len(feed([1, 0, 0, 0]).store) == 0


BROKEN: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "no chunk"),
    "no session": ([HEAD], "0 of 1 sessions"),
    "no rows": ([HEAD, SESSION], "0 of 2 keys"),
    "not all rows": ([HEAD, SESSION, ROWS[:2]], "1 of 2 keys"),
    "too many rows": ([HEAD, SESSION, ROWS, [b"c", row()]], "more than 2 keys"),
    "not msgpack": ([b"\xc1"], "can't be read"),
    "half a chunk": ([msgpack.packb(HEAD)[:-1]], "can't be read"),
    "more than a chunk": ([msgpack.packb(HEAD) + b"\0"], "can't be read"),
    "a map": ([b"\x81\xa1a\x01"], "can't be read"),
    "a number": ([7], "isn't an array"),
    "a later version": ([[3, 3, 2, 1]], "version 3; this program reads version 2"),
    "a later version with a longer head": ([[7, *range(40)]], "version 7"),
    "a head of other types": ([[1, 3, "2", 1]], "numbers"),
    "a head with True": ([[True, 3, 2, 1]], "numbers"),
    "an empty head": ([[]], "numbers"),
    "a short head": ([[1, 3, 2]], "3 numbers"),
    "more keys than revisions": ([[1, 1, 2, 0]], "impossible"),
    "fewer than no keys": ([[1, 1, -1, 0]], "impossible"),
    "fewer than no sessions": ([[1, 1, 0, -1]], "impossible"),
    "a revision with no room behind it": ([[1, 2**63, 2, 1]], "impossible"),
    "a session that is rows": ([HEAD, ROWS], "not a session"),
    "a session without applied": ([HEAD, SESSION[:3]], "not a session"),
    "a session's bytes cut": ([HEAD, ["n1", 2, 3, b"1234567"]], "not a session"),
    "a session of a node that is bytes": ([HEAD, [b"n1", 2, 3, b""]], "not a session"),
    "a session of an incarnation True": ([HEAD, ["n1", True, 3, b""]], "numbers"),
    "a session with a mark True": ([HEAD, ["n1", 1, True, b""]], "numbers"),
    "a session with a mark 0": ([HEAD, ["n1", 1, 0, b""]], "numbers"),
    "applied below the mark": ([HEAD, ["n1", 2, 5, pack("<QQ", 4, 7)]], "mark"),
    "applied out of order": ([HEAD, ["n1", 2, 3, pack("<QQ", 7, 4)]], "order"),
    "applied twice": ([HEAD, ["n1", 2, 3, pack("<QQ", 4, 4)]], "order"),
    "sessions out of order": ([[1, 3, 2, 2], ["n2", 1, 1, b""], ["n1", 1, 1, b""]], "order"),
    "a session twice": ([[1, 3, 2, 2], ["n1", 1, 1, b""], ["n1", 1, 1, b""]], "order"),
    "rows that are none": ([HEAD, SESSION, []], "has none"),
    "a key without a row": ([HEAD, SESSION, ROWS[:3]], "without one"),
    "a key that is text": ([HEAD, SESSION, ["a", row()]], "isn't bytes"),
    "a row that is text": ([HEAD, SESSION, [b"a", "row"]], "isn't bytes"),
    "keys out of order": ([HEAD, SESSION, ROWS[2:] + ROWS[:2]], "order"),
    "keys out of order from chunk to chunk": ([HEAD, SESSION, ROWS[2:], ROWS[:2]], "order"),
    "a key twice": ([HEAD, SESSION, ROWS[:2], ROWS[:2]], "order"),
    "a short row": ([HEAD, SESSION, [b"a", row()[:27]]], "too short"),
    "created at 0": ([HEAD, SESSION, [b"a", row(0)]], "revisions"),
    "modified before it was created": ([HEAD, SESSION, [b"a", row(2, 1)]], "revisions"),
    "modified after the machine's end": ([HEAD, SESSION, [b"a", row(1, 4)]], "revisions"),
    "version 0": ([HEAD, SESSION, [b"a", row(version=0)]], "version"),
    "more versions than revisions": ([HEAD, SESSION, [b"a", row(version=3)]], "version"),
    "a content type beyond the end": ([HEAD, SESSION, [b"a", row(size=3)]], "content type"),
    "a content type that isn't UTF-8": ([HEAD, SESSION, [b"a", row(size=2, rest=b"\xff")]], "UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_no_machine_wrote_is_refused(name: str) -> None:
    chunks, message = BROKEN[name]
    with pytest.raises(ValueError, match=message):
        feed(*chunks)


def test_an_unknown_version_is_no_damage() -> None:
    with pytest.raises(UnknownVersion):
        feed([3, 3, 2, 1])
    with pytest.raises(ValueError, match="numbers") as damage:
        feed([1, 3, 2])
    assert not isinstance(damage.value, UnknownVersion)


def test_after_an_error_and_after_the_end_there_is_no_way_on() -> None:
    machine = KvMachine()
    spoilt, finished = machine.restorer(), machine.restorer()
    with pytest.raises(ValueError, match="can't be read"):
        spoilt.feed(b"\xc1")
    for chunk in sample().export():
        finished.feed(chunk)
    finished.finish()
    machine.store.put(b"later", b"", None)
    calls: list[Callable[[], object]] = [
        lambda: spoilt.feed(msgpack.packb([1, 0, 0, 0])),
        spoilt.finish,
        lambda: finished.feed(msgpack.packb([b"c", row()])),
        finished.finish,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="earlier chunk was refused, or all was finished"):
            call()
    assert machine.store.get(b"later") is not None


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.binary(max_size=30) | st.sampled_from(["n1", 1.5]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=6,
)
HEADS = st.tuples(st.just(1), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2)).map(list)
SESSIONS = st.tuples(st.sampled_from(["n1", "n2"]) | VALUES, VALUES, VALUES, st.binary(max_size=17)).map(list)
NUMBERS = st.integers(0, 9)
RAW_ROWS = st.builds(row, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 4), st.binary(max_size=4)) | VALUES
ROW_CHUNKS = st.lists(st.tuples(st.binary(max_size=2), RAW_ROWS), max_size=3).map(
    lambda pairs: [value for pair in sorted(pairs, key=lambda pair: pair[0]) for value in pair]
)
CHUNKS = st.one_of(st.binary(max_size=40), (VALUES | SESSIONS | ROW_CHUNKS).map(msgpack.packb))


@settings(max_examples=300, deadline=None)
@given(head=HEADS, chunks=st.lists(CHUNKS, max_size=4))
def test_whatever_is_fed_is_refused_or_makes_a_sound_machine(head: list[int], chunks: list[bytes]) -> None:
    try:
        machine = feed(msgpack.packb(head), *chunks)
    except ValueError:
        return
    assert chunks_of(feed(*machine.export())) == chunks_of(machine)
    batch = BatchId("n3", 1, 1, 1)
    applied = machine.apply(0, machine.seal(batch, [encode_put(b"a", b""), encode_delete(b"")]))
    assert applied is not None
    assert applied.results is not None
    assert isinstance(applied.results[0], PutResult)


def chunks_of(machine: KvMachine) -> list[bytes]:
    return [chunk for chunk in machine.export() if chunk]


@pytest.mark.parametrize("fed", [[], [HEAD], [HEAD, SESSION]], ids=["head", "session", "rows"])
@pytest.mark.parametrize("claim", ["dc 0004", "dc 07d0", "dc e000", "dd ffffffff", "df ffffffff"])
def test_arrays_in_arrays_take_no_memory(fed: list[Any], claim: str) -> None:
    """Each claims to hold many more values than there are bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="can't be read"):
            feed(*fed, bytes.fromhex(claim) * 20_000)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@given(st.integers(0, 10**6), st.sampled_from(range(256)))
def test_a_changed_byte_is_refused_or_makes_a_sound_machine(place: int, byte: int) -> None:
    chunks = [bytearray(chunk) for chunk in sample().export()]
    chunk = chunks[place % len(chunks)]
    chunk[place // len(chunks) % len(chunk)] = byte
    try:
        machine = feed(*(bytes(each) for each in chunks))
    except ValueError:
        return
    assert chunks_of(feed(*machine.export())) == chunks_of(machine)
