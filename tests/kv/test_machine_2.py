"""Level 2 as a whole: the machine against a model that copies everything, through snapshots and restores."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from raftkv.kv import history, token
from raftkv.kv.commands import (
    encode_batch_of,
    encode_compact,
    encode_delete,
    encode_delete_range,
    encode_get,
    encode_grant,
    encode_increment,
    encode_keep_alive,
    encode_level,
    encode_once,
    encode_put,
    encode_revoke,
    encode_txn,
)
from raftkv.kv.history import Compacted
from raftkv.kv.lease import MAX_CHOSEN_ID, MAX_ID
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import (
    CompactResult,
    DeleteResult,
    IncrementResult,
    LeaseResult,
    Malformed,
    PutResult,
    Reason,
    Rejected,
    pack_result,
    unpack_result,
)
from raftkv.kv.row import item_of
from raftkv.kv.session import BatchId
from tests.kv.driven import Driven, chunks_of, restored
from tests.kv.model import Model

KEYS = [b"a", b"a/1", b"a/2", b"b", b"c/x", b"c/y"]


def draw(random: Random, driven: Driven, model: Model) -> None:  # noqa: PLR0915 - a case a command
    """One command, given to both."""
    key, now = random.choice(KEYS), model.revision + 1
    match random.randrange(10):
        case 0 | 1:
            value, kind = random.randbytes(3), random.choice([None, "text/plain"])
            driven.do(encode_put(key, value, kind))
            model.step({key: model.put(model.now, key, value, kind, 0)})
        case 2:
            driven.do(encode_delete(key))
            model.step({key: None} if key in model.now else {})
        case 3:
            keys = [each for each in model.now if b"a" <= each < b"b"]
            assert driven.do(encode_delete_range(b"a", b"b")).deleted == len(keys)
            model.step(dict.fromkeys(keys))
        case 4:
            ttl_ms = random.choice([200, 1000])
            granted = driven.do(encode_grant(ttl_ms))
            assert granted.lease == model.next_lease
            model.leases[model.next_lease] = (ttl_ms, driven.time_ms + ttl_ms, False)
            model.next_lease += 1
        case 5:
            lease = random.choice(list(model.leases) or [99])
            result = driven.do(encode_put(key, b"leased", lease=lease))
            assert isinstance(result, PutResult) == (lease in model.leases)
            if lease in model.leases:
                model.step({key: model.put(model.now, key, b"leased", None, lease)})
        case 6:
            result = driven.do(encode_put(key, b"mortal", ttl_ms=300))
            assert result.lease == model.next_lease
            model.leases[model.next_lease] = (300, driven.time_ms + 300, True)
            model.next_lease += 1
            model.step({key: model.put(model.now, key, b"mortal", None, result.lease)})
        case 7:
            other = random.choice(KEYS)
            commands = [encode_put(key, b"one"), encode_delete(other), encode_put(key, b"two")]
            driven.do(encode_txn([], commands, []))
            first = model.put(model.now, key, b"one", None, 0)
            held = {**model.now, key: first}
            gone = held.pop(other, None)
            last = model.put(held, key, b"two", None, 0)
            changes: dict[bytes, Any] = {key: last}
            if gone is not None and other != key:
                changes[other] = None
            model.step(changes)
        case 8:
            name = f"token{random.randrange(20)}"
            driven.do(encode_once(name, b"print", encode_increment(b"n", 2)))
            if name not in model.tokens:
                model.tokens.add(name)
                counted = b"%d" % (2 * len(model.tokens))
                model.step({b"n": model.put(model.now, b"n", counted, None, 0)})
        case _:
            lease = random.choice(list(model.leases) or [99])
            if random.random() < 0.5:
                driven.do(encode_keep_alive(lease))
                if lease in model.leases:
                    ttl_ms, _, own = model.leases[lease]
                    model.leases[lease] = (ttl_ms, driven.time_ms + ttl_ms, own)
            else:
                driven.do(encode_revoke(lease))
                if model.leases.pop(lease, None):
                    model.step({each: None for each, row in model.now.items() if row[5] == lease})
    assert now in {model.revision, model.revision + 1}


def compare(machine: KvMachine, model: Model, random: Random) -> None:
    store = machine.store
    assert store.revision == model.revision
    assert {key: _row(item) for key, item in store.page(b"", None, 100).items} == model.now
    assert {lease: tuple(row) for lease, row in machine.leases.rows().items()} == model.leases
    assert store.history is not None
    oldest = store.history.compacted
    after = random.randint(oldest, model.revision)
    found = [
        (revision, key, old and _row(item_of(old)), new and _row(item_of(new)))
        for revision, key, old, new in store.history.since(after)
    ]
    assert sorted(found, key=lambda change: change[:2]) == model.events(after)
    past = {key: _row(item) for key, item in store.page_at(after, b"", None, 100).items}
    assert past == model.past[after]
    backwards = store.page_at(after, b"a", b"b", 100, reverse=True).items
    assert [key for key, _ in backwards] == sorted((k for k in past if b"a" <= k < b"b"), reverse=True)
    for key in KEYS:
        item = store.get_at(key, after)
        assert (item and _row(item)) == model.past[after].get(key)


def derived(machine: KvMachine) -> Any:
    """What isn't in a snapshot, and follows from what is."""
    store, history = machine.store, machine.store.history
    assert history is not None
    return (
        (len(store), store.size_bytes, store.keyless, len(machine.tokens), machine.tokens._bytes),
        {lease: store.leased(lease) for lease in machine.leases.rows()},
        (len(history), history.size_bytes, history.last_revision, history.checksum, history.time_ms),
        [history.compactable(keep, before_ms) for keep in (0, 5, 50) for before_ms in (0, 100, 1 << 40)],
        history._deleted,
    )


def _row(item: Any) -> Any:
    return (item.value, item.create_revision, item.mod_revision, item.version, item.content_type, item.lease)


@pytest.mark.parametrize("seed", range(12))
def test_the_machine_does_what_the_model_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small blocks, and few of them; now and then the machine is exchanged for its restored snapshot."""
    random = Random(seed)
    monkeypatch.setattr(history, "BLOCK_BYTES", random.choice([1, 400, 256 << 10]))
    monkeypatch.setattr(history, "MAX_CHANGES", random.choice([10, 100_000]))
    driven, model = Driven(), Model()
    driven.machine.store.history.compact(0)  # type: ignore[union-attr]
    for _ in range(300):
        driven.time_ms += random.choice([0, 1, 50])
        model.pass_time(driven.time_ms)
        draw(random, driven, model)
        if random.random() < 0.05:
            driven.do(encode_compact(random.randint(0, model.revision)))
        if random.random() < 0.2:
            compare(driven.machine, model, random)
        if random.random() < 0.1:
            copy = restored(driven.machine)
            assert chunks_of(copy) == chunks_of(driven.machine)
            assert derived(copy) == derived(driven.machine)
            assert copy.store.history.mark in {None, driven.machine.store.history.mark}  # type: ignore[union-attr]
            driven.machine = copy
    # What the log alone leads to is the same, byte for byte.
    alone = KvMachine()
    for time_ms, data in driven.log:
        alone.apply(time_ms, data)
    assert chunks_of(alone) == chunks_of(driven.machine)
    assert alone.checksum == driven.machine.checksum


def test_before_level_2_nothing_of_it_is_understood() -> None:
    machine = KvMachine()
    commands = [encode_grant(1000), encode_txn([], [], []), encode_put(b"k", b"", ttl_ms=500)]
    applied = machine.apply(0, machine.seal(BatchId("n1", 1, 1, 1), [*commands, encode_level(9)]))
    assert applied is not None
    assert all(isinstance(result, Malformed) for result in applied.results or [])
    assert machine.store.history is None
    assert chunks_of(machine)[0][1] == 1  # version 1, which older nodes read


def test_a_lease_never_gets_the_id_of_another() -> None:
    driven = Driven()
    assert [driven.do(encode_grant(500, lease)).lease for lease in (0, 10, 5, 0, 0)] == [1, 10, 5, 11, 12]


def test_tokens_that_are_forgotten_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "MAX_BYTES", 1000)
    tokens = token.Tokens()
    for number in range(20):
        tokens.add(f"t{number}", token.Outcome(number * token.KEPT_MS, b"print", b"result"))
        assert tokens.get(f"t{number}") is not None
        tokens.forget((number + 1) * token.KEPT_MS)
        assert len(tokens) == 0


def test_a_lease_that_somebody_names_leaves_names_for_all_to_come() -> None:
    driven = Driven()
    assert isinstance(driven.do(encode_grant(500, MAX_CHOSEN_ID + 1)), Malformed)
    assert driven.do(encode_grant(500, MAX_CHOSEN_ID)).lease == MAX_CHOSEN_ID
    assert driven.do(encode_grant(500)).lease == MAX_CHOSEN_ID + 1
    assert MAX_ID - MAX_CHOSEN_ID > 1 << 51


def test_once_is_once() -> None:
    driven = Driven()
    command = encode_batch_of([encode_increment(b"n", 2), encode_put(b"k", b"v")])
    first = driven.do(encode_once("token", b"print", command))
    driven.machine = restored(driven.machine)
    assert driven.do(encode_once("token", b"print", command)) == first
    other = driven.do(encode_once("token", b"other", command))
    assert isinstance(other, Rejected)
    assert other.reason is Reason.TOKEN_REUSED
    driven.time_ms += 3_600_000
    assert driven.do(encode_once("token", b"other", command)).results[0] == IncrementResult(4, 3, 2)


def test_results_are_packed_and_unpacked() -> None:
    driven = Driven()
    driven.do(encode_put(b"k", b"v", "text/plain"))
    nested = encode_txn(
        [], [encode_get(b"k"), encode_get(b"none"), encode_txn([], [encode_delete(b"k")], [])], []
    )
    result = driven.do(nested)
    assert result.results[2].results == (DeleteResult(1, 2),)
    for each in (result, Rejected(Reason.COMPACTED, "gone", 7), LeaseResult(1, 2, 3)):
        assert unpack_result(pack_result(each)) == each
        assert type(unpack_result(pack_result(each))) is type(each)


def test_what_is_compacted_is_refused() -> None:
    driven = Driven()
    for number in range(5):
        driven.do(encode_put(b"k", b"%d" % number))
    assert driven.do(encode_compact(3)) == CompactResult(3, 5)
    store = driven.machine.store
    item = store.get_at(b"k", 3)
    assert item is not None
    assert item.value == b"2"
    with pytest.raises(Compacted, match="before 3"):
        store.get_at(b"k", 2)
    assert driven.do(encode_compact(9)).reason is Reason.FUTURE_REVISION
