"""What one command, or one read of the past, may cost: there are bounds, and what they bound is right."""

from __future__ import annotations

import pytest

from raftkv.kv import history, txn
from raftkv.kv.commands import (
    encode_batch_of,
    encode_delete,
    encode_get,
    encode_put,
    encode_range,
    encode_txn,
)
from raftkv.kv.results import GetResult, RangeResult, Reason, Rejected, TxnResult
from tests.kv.driven import Driven

VALUE = b"v" * 100


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    """With three keys, of which a command may read two."""
    monkeypatch.setattr(txn, "MAX_READ_BYTES", 300)
    driven = Driven()
    for key in (b"a", b"b", b"c"):
        driven.do(encode_put(key, VALUE))
    return driven


def test_a_transaction_that_reads_too_much_changes_nothing(driven: Driven) -> None:
    gets = [encode_get(key) for key in (b"a", b"b", b"c")]
    put = encode_put(b"new", b"")
    refused = driven.do(encode_txn([], [put, *gets], []))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.ANSWER_TOO_LARGE
    assert driven.machine.store.get(b"new") is None
    assert isinstance(driven.do(encode_txn([], [put, *gets[:2]], [])), TxnResult)
    nested = encode_txn([], [gets[0], encode_txn([], gets[1:], [])], [])
    assert isinstance(driven.do(nested), Rejected)


def test_a_range_ends_early(driven: Driven) -> None:
    result = driven.do(encode_txn([], [encode_range(b"", None, 10)], []))
    (found,) = result.results
    assert isinstance(found, RangeResult)
    assert ([key for key, _ in found.items], found.more) == ([b"a", b"b"], True)


def test_the_operations_of_a_batch_share_it(driven: Driven) -> None:
    gets = [encode_get(key) for key in (b"a", b"none", b"b", b"c")]
    result = driven.do(encode_batch_of([*gets, encode_put(b"new", b"")]))
    kinds = [type(each) for each in result.results[:4]]
    assert kinds == [GetResult, GetResult, GetResult, Rejected]
    assert driven.machine.store.get(b"new") is not None
    assert isinstance(driven.do(encode_batch_of(gets[:3])).results[2], GetResult), "each command anew"


@pytest.mark.parametrize("steps", [1, 2, 3, 16])
def test_a_key_that_changed_often_is_known_at_each_revision(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(history, "_MAX_STEPS", steps)
    driven = Driven()
    store = driven.machine.store
    expected: list[bytes | None] = [None]
    for number in range(60):
        value = None if number % 5 == 4 else b"%d" % number
        driven.do(encode_delete(b"k") if value is None else encode_put(b"k", value))
        driven.do(encode_put(b"other", b""))
        expected += [value, value]
    for revision, value in enumerate(expected):
        item = store.get_at(b"k", revision)
        assert (item and item.value) == value, revision
