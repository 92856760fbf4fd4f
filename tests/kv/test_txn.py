"""Transactions: all of their operations at one revision, or no trace."""

from __future__ import annotations

import pytest

from raftkv.kv.commands import (
    Compare,
    Condition,
    ConditionKind,
    Relation,
    Target,
    encode_delete,
    encode_delete_range,
    encode_get,
    encode_increment,
    encode_put,
    encode_txn,
)
from raftkv.kv.results import (
    GetResult,
    IncrementResult,
    Reason,
    Refused,
    Rejected,
    TxnResult,
)
from tests.kv.driven import Driven, chunks_of


def test_a_transaction_that_fails_leaves_nothing() -> None:
    driven = Driven()
    driven.do(encode_put(b"text", b"x"))
    before = chunks_of(driven.machine)[-1], driven.machine.leases.rows()
    result = driven.do(encode_txn([], [encode_put(b"k", b"v", ttl_ms=500), encode_increment(b"text", 1)], []))
    assert isinstance(result, Rejected)
    assert result.reason is Reason.NOT_A_NUMBER
    assert (chunks_of(driven.machine)[-1], driven.machine.leases.rows()) == before
    assert driven.machine.store.revision == 1


def test_an_operation_sees_what_those_before_it_did() -> None:
    """Ranges of keys too, and the compares of transactions within."""
    driven = Driven()
    driven.do(encode_put(b"a", b"old"))

    def there(start: bytes, end: bytes) -> bytes:
        return encode_txn([Compare(start, Target.EXISTS, Relation.EQUAL, 1, end)], [], [])

    result = driven.do(
        encode_txn(
            [],
            [
                encode_delete(b"a"),
                encode_put(b"b", b"new"),
                there(b"a", b"b"),
                there(b"b", b"c"),
                encode_delete_range(b"", None),
                there(b"", b""),
            ],
            [],
        )
    )
    deleted, _, gone, made, both, none = result.results
    assert (deleted.deleted, both.deleted) == (1, 1)
    assert [inner.succeeded for inner in (gone, made, none)] == [False, True, False]
    assert len(driven.machine.store) == 0


def test_all_compares_must_hold() -> None:
    driven = Driven()
    for exists in ((1, 0), (0, 1), (0, 0)):
        compares = [Compare(b"none", Target.EXISTS, Relation.EQUAL, each) for each in exists]
        assert driven.do(encode_txn(compares, [], [])).succeeded == (exists == (0, 0))
    assert driven.do(encode_txn([], [], [])).succeeded


def test_a_condition_that_fails_in_a_transaction_tells_of_no_revision_to_come() -> None:
    driven = Driven()
    driven.do(encode_put(b"k", b"v"))
    refused = encode_put(b"k", b"w", None, Condition(ConditionKind.ABSENT))
    assert driven.do(encode_txn([], [encode_put(b"other", b"v"), refused], [])) == Refused(1, 1)
    assert driven.machine.store.revision == 1


@pytest.mark.parametrize("there", [True, False])
def test_a_condition_tells_what_the_store_has_not_what_the_transaction_would_have_made(there: bool) -> None:
    driven = Driven()
    driven.do(encode_put(b"k" if there else b"other", b"v"))
    refused = encode_put(b"k", b"w", None, Condition(ConditionKind.REVISION_IN, (1,)))
    assert driven.do(encode_txn([], [encode_put(b"k", b"v"), refused], [])) == Refused(int(there), 1)


@pytest.mark.parametrize("delete", [encode_delete(b"k"), encode_delete_range(b"k", b"l")])
def test_what_a_transaction_makes_and_deletes_was_never_there(delete: bytes) -> None:
    driven = Driven()
    driven.do(encode_put(b"other", b"v"))
    before = chunks_of(driven.machine)[-1]
    result = driven.do(encode_txn([], [encode_put(b"k", b"v"), delete], []))
    assert (result.results[1].deleted, result.revision) == (1, 1)
    assert driven.machine.store.revision == 1, "a revision without a change"
    assert chunks_of(driven.machine)[-1] == before
    # Beside it, what is deleted and was there before, and what is put again after it was deleted.
    again = [encode_put(b"k", b"v"), delete, encode_delete(b"other"), encode_put(b"k", b"w")]
    assert driven.do(encode_txn([], again, [])).revision == 2
    assert driven.machine.store.history is not None
    changes = [(key, new is None) for _, key, _, new in driven.machine.store.history.since(1)]
    assert changes == [(b"other", True), (b"k", False)]


def test_a_time_to_live_of_what_a_transaction_puts_again_or_deletes_leaves_no_lease() -> None:
    driven = Driven()
    mortal = encode_put(b"k", b"v", ttl_ms=500)
    result = driven.do(encode_txn([], [mortal, mortal], []))
    leases = driven.machine.leases
    assert list(leases.rows()) == [result.results[1].lease]
    driven.do(encode_txn([], [encode_put(b"new", b"v", ttl_ms=500), encode_delete(b"new")], []))
    assert list(leases.rows()) == [result.results[1].lease]
    driven.do(encode_txn([], [mortal, encode_put(b"k", b"for ever")], []))
    assert not leases.rows()


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare(b"n", Target.VALUE, Relation.EQUAL, b"5"), True),
        (Compare(b"n", Target.VALUE, Relation.LESS, b"5"), False),
        (Compare(b"n", Target.VERSION, Relation.GREATER, 0), True),
        (Compare(b"n", Target.MOD_REVISION, Relation.NOT_EQUAL, 1), False),
        (Compare(b"n", Target.EXISTS, Relation.EQUAL, 1), True),
        (Compare(b"none", Target.EXISTS, Relation.EQUAL, 0), True),
        (Compare(b"none", Target.VALUE, Relation.NOT_EQUAL, b"x"), False),
        (Compare(b"none", Target.VERSION, Relation.EQUAL, 0), True),
        (Compare(b"", Target.LEASE, Relation.EQUAL, 0, b""), True),
        (Compare(b"", Target.VALUE, Relation.EQUAL, b"5", b""), False),
    ],
)
def test_compares(compare: Compare, holds: bool) -> None:
    driven = Driven()
    driven.do(encode_put(b"n", b"5"))
    driven.do(encode_put(b"z", b"6"))
    result = driven.do(encode_txn([compare], [encode_get(b"n")], [encode_increment(b"n", -7)]))
    assert isinstance(result, TxnResult)
    assert result.succeeded == holds
    if holds:
        assert isinstance(result.results[0], GetResult)
    else:
        assert result.results == (IncrementResult(-2, 3, 2),)
