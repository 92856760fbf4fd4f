"""The ordered map against a dict that is sorted anew, and what its shape is for."""

from __future__ import annotations

import gc
import random
import sys
from itertools import takewhile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raftkv.kv.ordered import MAX_BUCKET_KEYS, OrderedRows

KEYS = st.binary(max_size=2).map(lambda key: bytes(byte % 8 for byte in key))


class AgainstADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.rows = OrderedRows(max_bucket_keys=8)
        self.known: dict[bytes, bytes] = {}

    @initialize(keys=st.sets(KEYS))
    def begin(self, keys: set[bytes]) -> None:
        for key in sorted(keys):
            self.rows.append(key, b"appended")
            self.known[key] = b"appended"

    @rule(key=KEYS, row=st.binary(max_size=2))
    def put(self, key: bytes, row: bytes) -> None:
        if key in self.known:
            self.rows.bucket(key)[key] = row
        else:
            self.rows.add(key, row)
        self.known[key] = row

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.known:
            key = data.draw(st.sampled_from(sorted(self.known)))
            self.rows.remove(key)
            del self.known[key]

    @rule(data=st.data())
    def remove_many(self, data: st.DataObject) -> None:
        for _ in range(7):
            self.remove(data)

    @rule(start=KEYS)
    def ascending(self, start: bytes) -> None:
        expected = [pair for pair in sorted(self.known.items()) if pair[0] >= start]
        assert list(self.rows.ascending(start)) == expected

    @rule(end=st.none() | KEYS)
    def descending(self, end: bytes | None) -> None:
        expected = [pair for pair in sorted(self.known.items(), reverse=True) if end is None or pair[0] < end]
        assert list(self.rows.descending(end)) == expected

    @invariant()
    def agree(self) -> None:
        assert len(self.rows) == len(self.known)
        assert all(self.rows.bucket(key).get(key) == row for key, row in self.known.items())

    @invariant()
    def buckets_are_neither_large_nor_many(self) -> None:
        sizes = sizes_of(self.rows)
        assert all(size <= 8 for size in sizes)
        assert sum(sizes) == len(self.known)
        assert all(sizes) or len(sizes) == 1


AgainstADict.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOrderedRows = AgainstADict.TestCase


def sizes_of(rows: OrderedRows) -> list[int]:
    return [len(bucket) for bucket in rows.pieces()]


@pytest.mark.parametrize("order", ["ascending", "descending", "random", "appended"])
def test_buckets_stay_about_half_full(order: str) -> None:
    keys = [b"%06d" % number for number in range(20 * MAX_BUCKET_KEYS)]
    if order == "descending":
        keys.reverse()
    elif order == "random":
        random.Random(1).shuffle(keys)
    rows = OrderedRows()
    for key in keys:
        (rows.append if order == "appended" else rows.add)(key, b"")
    assert max(sizes_of(rows)) <= MAX_BUCKET_KEYS // (2 if order == "appended" else 1), (
        "room for keys to come"
    )
    assert len(sizes_of(rows)) <= 42
    for key in keys[10:]:
        rows.remove(key)
    assert len(sizes_of(rows)) <= 2, "what is nearly empty is put together"


def test_buckets_are_put_together_only_while_that_leaves_room() -> None:
    rows = OrderedRows(max_bucket_keys=16)
    for number in range(17):
        rows.add(b"%02d" % number, b"")
    for key in (b"001", b"0000"):  # not in order
        rows.add(key, b"")
    for number in range(8):
        rows.remove(b"%02d" % number)
    assert sizes_of(rows) == [2, 9]
    for number in (8, 9, 10):
        rows.remove(b"%02d" % number)
    rows.remove(b"0000")
    assert sizes_of(rows) == [7]


def test_buckets_put_together_are_in_order() -> None:
    rows = OrderedRows(max_bucket_keys=16)
    for number in range(17):
        rows.add(b"%02d" % number, b"")
    for key in (b"001", b"0000"):
        rows.add(key, b"")
    for number in (8, 9, 10, *range(8)):
        rows.remove(b"%02d" % number)
    assert sizes_of(rows) == [8]
    assert [key for key, _ in rows.ascending(b"")] == [b"0000", b"001", *(b"%d" % n for n in range(11, 17))]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 tracks every dict")
def test_the_garbage_collector_looks_at_no_row() -> None:
    rng = random.Random(1)
    rows = OrderedRows()
    for number in rng.sample(range(100_000), 5 * MAX_BUCKET_KEYS):
        rows.add(b"%06d" % number, b"row")
    rows.remove(next(rows.ascending(b""))[0])
    assert not [bucket for bucket in rows.pieces() if gc.is_tracked(bucket)]
    assert len(list(rows.ascending(b""))) == len(rows)
    assert not [bucket for bucket in rows.pieces() if gc.is_tracked(bucket)], "put in order, too"


def test_a_walk_that_ends_early_puts_nothing_behind_it_in_order() -> None:
    """So a short page of a large store is cheap."""
    rows = OrderedRows()
    for number in reversed(range(10 * MAX_BUCKET_KEYS)):
        rows.add(b"%06d" % number, b"")
    before = sorted_buckets(rows)
    page = list(takewhile(lambda pair: pair[0] < b"000010", rows.ascending(b"000005")))
    assert len(page) == 5
    assert sorted_buckets(rows) == before + 1


def sorted_buckets(rows: OrderedRows) -> int:
    return sum(list(bucket) == sorted(bucket) for bucket in rows.pieces())
