"""A machine written out while it goes on, and read back, is the machine that it was."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv import image
from raftkv.kv import row as row_module
from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import PutResult
from raftkv.kv.session import BatchId
from raftkv.kv.snapshot import Export
from raftkv.kv.store import MAX_IMAGES
from tests.kv.dump import seen

KEYS = st.sampled_from([bytes([letter]) for letter in b"abcdefgh"] + [b"", b"a\0", b"\xff"])
CONDITIONS = st.none() | st.builds(
    Condition, st.sampled_from(ConditionKind), st.lists(st.integers(0, 20), max_size=3).map(tuple)
)
COMMANDS = st.one_of(
    st.builds(encode_put, KEYS, st.binary(max_size=4), st.none() | st.text(max_size=3), CONDITIONS),
    st.builds(encode_put, KEYS, st.binary(max_size=4)),
    st.builds(encode_delete, KEYS, CONDITIONS),
    st.builds(encode_delete, KEYS),
)
BATCHES = st.tuples(
    st.builds(
        BatchId, st.sampled_from(["n2", "n1"]), st.integers(1, 2), st.integers(-1, 60), st.integers(-1, 9)
    ),
    st.lists(COMMANDS, max_size=4),
)
Batch = tuple[BatchId, list[bytes]]


def apply(machine: KvMachine, batches: Iterable[Batch]) -> list[Any]:
    return [machine.apply(0, machine.seal(batch, commands)) for batch, commands in batches]


def chunks_of(machine: KvMachine) -> list[bytes]:
    return [chunk for chunk in machine.export() if chunk]


def restored(chunks: Iterable[bytes]) -> KvMachine:
    restore = KvMachine().restorer()
    for chunk in chunks:
        restore.feed(chunk)
    return restore.finish()


def filled(keys: int, *, seed: int = 1) -> KvMachine:
    """``keys`` keys of 16 bytes, put in no order, and every tenth again."""
    rng = random.Random(seed)
    machine = KvMachine()
    names = [b"%016d" % number for number in rng.sample(range(10 * keys), keys)]
    for name in names + names[::10]:
        machine.store.put(name, rng.randbytes(64), rng.choice([None, "", "text/plain"]))
    return machine


@settings(deadline=None)
@given(
    before=st.lists(BATCHES, max_size=12),
    during=st.lists(BATCHES | st.none(), max_size=12),
    after=st.lists(BATCHES, max_size=6),
)
def test_a_machine_restored_goes_on_as_the_one_exported(
    before: list[Batch], during: list[Batch | None], after: list[Batch]
) -> None:
    machine, still = KvMachine(), KvMachine()
    assert apply(machine, before) == apply(still, before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "MAX_PIECE_ROWS", 2)
        patch.setattr(image, "MAX_STEP_ROWS", 3)
        export = machine.export()
        chunks = []
        meanwhile = []
        for batch in during:
            if batch is None:
                chunks += [next(export, b"")]
            else:
                meanwhile += [(batch, apply(machine, [batch]))]
        chunks += export
        chunks = [chunk for chunk in chunks if chunk]
        assert chunks == chunks_of(still), "the same as if nothing had been written meanwhile"
    other = restored(chunks)
    assert seen(other) == seen(still)
    for batch, results in meanwhile:
        assert apply(other, [batch]) == results
    assert apply(other, after) == apply(machine, after)
    assert chunks_of(other) == chunks_of(machine)


def test_a_large_machine_under_writes() -> None:
    """Several buckets and pieces: keys change, come and go on both sides of where the export stands."""
    rng = random.Random(2)
    machine = filled(6_000)
    before, state = chunks_of(machine), seen(machine)
    assert len(before) > 8
    names = [name for name, _ in state[1]]
    chunks = []
    for chunk in machine.export():
        chunks.append(chunk)
        for name in rng.sample(names, 400):
            machine.store.put(name, b"changed", None)
            machine.store.delete(name[:-1] + b"x")
        for name in rng.sample(names, 200):
            machine.store.delete(name)
            machine.store.put(name[:-1] + b"x", b"new", None)
    assert seen(machine)[1] != state[1]
    assert [chunk for chunk in chunks if chunk] == before
    assert seen(restored(before)) == state
    assert seen(restored(chunks)) == state, "empty chunks change nothing"


def test_the_last_keys_may_go() -> None:
    machine = filled(3_000)
    before = chunks_of(machine)
    names = [name for name, _ in seen(machine)[1]]
    export = machine.export()
    chunks = [next(export), next(export)]
    for name in names[-5:]:
        machine.store.delete(name)
    assert [*chunks, *export] == before


@pytest.mark.parametrize("old", [image.MAX_STEP_ROWS - 1, image.MAX_STEP_ROWS, image.MAX_STEP_ROWS + 1])
def test_each_step_looks_at_few_rows_however_many_came_later(
    old: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one step ends and the next begins stands a key that belongs to the export."""
    machine = KvMachine()
    for name in (b"%06d" % (old - 1), b"z"):
        machine.store.put(name, b"", None)
    before = chunks_of(machine)
    export = machine.export()
    for number in range(5 * image.MAX_STEP_ROWS):
        if number != old - 1:
            machine.store.put(b"%06d" % number, b"", None)
    looked_at: list[bytes] = []

    def mod_revision_of(row: bytes) -> int:
        looked_at.append(row)
        return row_module.mod_revision_of(row)

    monkeypatch.setattr(image, "mod_revision_of", mod_revision_of)
    chunks = [next(export)]
    for _ in range(5):
        assert next(export) == b""
        assert len(looked_at) == image.MAX_STEP_ROWS
        looked_at.clear()
    assert [*chunks, *export] == before


def test_where_chunks_end_does_not_depend_on_what_came_later() -> None:
    """The first is interrupted by more new keys than one step looks at."""
    machine = KvMachine()
    for number in range(900):
        machine.store.put(b"%c%06d" % (b"a" if number < 300 else b"z", number), bytes(100), None)
    before = chunks_of(machine)
    assert len(before) == 3
    export = machine.export()
    for number in range(2 * image.MAX_STEP_ROWS):
        machine.store.put(b"m%06d" % number, b"", None)
    assert [chunk for chunk in export if chunk] == before


def test_chunks_are_about_64_kib() -> None:
    _, *full, last = chunks_of(filled(6_000))
    assert all(64 << 10 <= len(chunk) <= 70 << 10 for chunk in full)
    assert len(last) <= 70 << 10
    small = KvMachine()
    for number in range(2_500):
        small.store.put(b"%d" % number, b"", None)
    assert len(chunks_of(small)) == 1 + 3


def test_an_export_keeps_only_what_changes_and_is_not_read_yet() -> None:
    machine = filled(3_000)
    names = [name for name, _ in seen(machine)[1]]
    past = machine.store.image()
    assert past.step()
    for _ in range(3):
        for name in [names[0], names[-1], names[-2]]:
            machine.store.put(name, b"again", None)
        machine.store.delete(names[-3])
        machine.store.put(b"~new", b"", None)
        machine.store.put(b"~new", b"again", None)
        machine.store.delete(b"~new")
        machine.store.put(names[-3], b"anew", None)
    assert sorted(key for key, _ in past._kept) == names[-3:]
    assert past.kept_bytes == sum(len(key) + len(row) for key, row in past._kept)
    while not past.is_read:
        past.step()
    assert not past._kept
    assert past.kept_bytes == 0


def test_few_exports_at_a_time() -> None:
    machine = filled(2_000)
    export, *others = [machine.export() for _ in range(MAX_IMAGES)]
    next(export)
    with pytest.raises(RuntimeError, match="image"):
        machine.export()
    export.close()
    export.close()
    assert list(export) == []
    second = machine.export()
    export.close()
    with pytest.raises(RuntimeError):
        machine.export()
    assert len(list(second)) > 2
    third = machine.export()  # one that came to its end needs no closing
    assert len({tuple(filter(None, each)) for each in [*others, third]}) == 1


def test_exports_of_several_moments_at_once() -> None:
    """Each is of the moment it was begun at, whatever is written between their steps."""
    rng = random.Random(3)
    machine = filled(3_000)
    names = [name for name, _ in seen(machine)[1]]
    begun: list[tuple[Export, list[bytes], list[bytes]]] = []
    for _ in range(MAX_IMAGES - 1):
        begun.append((machine.export(), [], chunks_of(machine)))
        for export, read, _ in begun:
            read.append(next(export))
        for name in rng.sample(names, 300):
            machine.store.put(name, rng.randbytes(8), None)
        for name in rng.sample(names, 100):
            machine.store.delete(name)
    for export, read, chunks in begun:
        assert [chunk for chunk in (*read, *export) if chunk] == chunks


def test_an_export_that_ended_keeps_nothing() -> None:
    machine = filled(2_000)
    last = seen(machine)[1][-1][0]
    for end in (Export.close, list):
        export = machine.export()
        next(export)
        end(export)
        machine.store.put(last, b"changed", None)
        assert not export._image._kept


def test_a_machine_is_itself_until_its_restore_is_finished() -> None:
    source, machine = filled(3_000), filled(2_000, seed=5)
    store, state = machine.store, seen(machine)
    going_on = machine.export()
    expected = chunks_of(filled(2_000, seed=5))
    restore = machine.restorer()
    chunks = [next(going_on)]
    for chunk in chunks_of(source):
        assert seen(machine) == state
        restore.feed(chunk)
    assert restore.finish() is machine
    assert machine.store is store, "whoever reads the store goes on reading it"
    assert seen(machine) == seen(source)
    assert apply(machine, [(BatchId("n1", 1, 1, 1), [encode_put(b"k", b"")])]) == apply(
        source, [(BatchId("n1", 1, 1, 1), [encode_put(b"k", b"")])]
    )
    chunks += going_on
    assert chunks == expected, "an export goes on to its end"
    assert chunks_of(machine) == chunks_of(source)


def test_a_session_lasts() -> None:
    machine = KvMachine()
    batches = [
        (BatchId("n1", 2, seq, low), [encode_put(b"k", b"%d" % seq)])
        for seq, low in [(1, 1), (4, 1), (7, 3), (2**63, 3)]
    ]
    apply(machine, batches)
    other = restored(chunks_of(machine))
    for refused in (*batches, (BatchId("n1", 1, 9, 1), []), (BatchId("n1", 2, 2, 1), [])):
        (applied,) = apply(other, [refused])
        assert applied is not None
        assert applied.results is None
    (applied,) = apply(other, [(BatchId("n1", 2, 3, 1), [encode_put(b"k", b"")])])
    assert applied is not None
    assert applied.results == [PutResult(5, 5)]


def test_the_former_store_is_freed_bit_by_bit() -> None:
    machine = filled(20_000)
    restore = machine.restorer()
    for chunk in chunks_of(KvMachine()):
        restore.feed(chunk)
    restore.finish()
    before = len(machine._former)
    sizes = []
    for seq in range(1, before):
        apply(machine, [(BatchId("n1", 1, seq, seq), [])])
        sizes.append(len(machine._former))
    assert sizes[0] < before
    assert sizes[-1] == 0
    assert all(one - other <= 4 for one, other in zip([before, *sizes], sizes, strict=False))
