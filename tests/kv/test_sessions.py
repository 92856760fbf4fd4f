"""Sessions: each batch at most once; one that its node hasn't given up is admitted, whatever the order."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.session import BatchId, Sessions

BATCHES = st.builds(
    BatchId,
    node=st.sampled_from(["n1", "n2"]),
    incarnation=st.integers(-1, 3),
    seq=st.integers(-1, 6),
    low=st.integers(-1, 7),
)


class Known:
    """What the docstring of ``session`` says, word for word, without forgetting anything."""

    def __init__(self) -> None:
        self.seen: list[BatchId] = []
        self.applied: set[tuple[str, int, int]] = set()

    def admit(self, batch: BatchId) -> bool:
        life = (batch.node, batch.incarnation)
        newest = max((b.incarnation for b in self.seen if b.node == batch.node), default=batch.incarnation)
        admitted = [b for b in self.seen if (b.node, b.incarnation) == life and self._is_applied(b)]
        low = max((b.low for b in admitted), default=1)
        self.seen.append(batch)
        if batch.incarnation < newest or batch.seq < max(low, 1) or (*life, batch.seq) in self.applied:
            return False
        self.applied.add((*life, batch.seq))
        return True

    def _is_applied(self, batch: BatchId) -> bool:
        return (batch.node, batch.incarnation, batch.seq) in self.applied


@settings(deadline=None)
@given(st.lists(BATCHES, max_size=40))
def test_against_the_naive_model(batches: list[BatchId]) -> None:
    sessions, known = Sessions(), Known()
    names: dict[tuple[str, int, int], BatchId] = {}  # one name, one batch: its low never changes
    for given_batch in batches:
        name = (given_batch.node, given_batch.incarnation, given_batch.seq)
        batch = names.setdefault(name, given_batch)
        assert sessions.admit(batch) == known.admit(batch), batch


class Node:
    """Makes batches as a replica does: ``low`` is the oldest that it still cares about."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.next_seq = 1
        self.open: dict[int, BatchId] = {}

    def seal(self) -> BatchId:
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        batch = self.open[seq] = BatchId("n1", 1, seq, min(self.open, default=seq))
        return batch


@settings(deadline=None)
@given(rng=st.randoms(use_true_random=False), given_up=st.booleans())
def test_any_order_with_repeats_applies_each_batch_once(rng: random.Random, given_up: bool) -> None:
    sessions, node = Sessions(), Node(rng)
    in_flight: list[BatchId] = []  # copies, as leaders may hold them
    applied: list[int] = []
    abandoned: set[int] = set()
    for _ in range(rng.randrange(200)):
        if rng.random() < 0.5 and len(node.open) < 4:
            batch = node.seal()
            in_flight += [batch] * rng.randint(1, 3)
        elif node.open and given_up and rng.random() < 0.1:
            abandoned.add(node.open.pop(rng.choice(sorted(node.open))).seq)
        elif in_flight:
            batch = in_flight.pop(rng.randrange(len(in_flight)))
            is_open = batch.seq in node.open
            admitted = sessions.admit(batch)
            if admitted:
                applied.append(batch.seq)
                node.open.pop(batch.seq, None)
            assert admitted or not is_open, "an open batch that was not applied before was dropped"
    for batch in in_flight:
        if sessions.admit(batch):
            applied.append(batch.seq)
    assert len(applied) == len(set(applied)), "applied twice"
    assert set(range(1, node.next_seq)) - abandoned <= set(applied), "lost"


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_memory_is_bounded_by_what_is_above_the_low_mark(rng: random.Random) -> None:
    """One row a node; in a row, nothing below the newest low mark."""
    sessions, node = Sessions(), Node(rng)
    for _ in range(300):
        if len(node.open) < 4:
            node.seal()
        seq = rng.choice(sorted(node.open))
        batch = node.open.pop(seq)
        sessions.admit(batch)
        sessions.admit(batch)
        (row,) = sessions._rows.values()
        assert len(row.applied) <= node.next_seq - row.low
        assert all(seq >= row.low for seq in row.applied)


def test_batches_settled_in_order_leave_one_number_behind() -> None:
    sessions = Sessions()
    for incarnation in (1, 2):
        for seq in range(1, 1001):
            assert sessions.admit(BatchId("n1", incarnation, seq, seq))
    (row,) = sessions._rows.values()
    assert (row.incarnation, row.low, row.applied) == (2, 1000, {1000})


def test_a_new_life_ends_the_old_one() -> None:
    sessions = Sessions()
    assert sessions.admit(BatchId("n1", 1, 1, 1))
    assert sessions.admit(BatchId("n1", 3, 1, 1))
    assert not sessions.admit(BatchId("n1", 1, 2, 1))
    assert not sessions.admit(BatchId("n1", 2, 1, 1)), "older, though it was never seen"
    assert not sessions.admit(BatchId("n1", 3, 1, 1))
    assert sessions.admit(BatchId("n2", 1, 1, 1)), "lives are each node's own"


def test_a_batch_given_up_before_it_came_is_dropped() -> None:
    sessions = Sessions()
    assert sessions.admit(BatchId("n1", 1, 5, 4))
    assert not sessions.admit(BatchId("n1", 1, 3, 1))
    assert sessions.admit(BatchId("n1", 1, 4, 3))
