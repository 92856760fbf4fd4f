"""The judge sees unequal nodes and lost writes, and nothing else."""

from __future__ import annotations

import math

import pytest

from raftkv.verify.history import Delete, Deleted, Get, History, Item, Operation, Outcome, Put, Read, Written
from tests.nemesis.figures import Report, kind_of, outcome_of
from tests.nemesis.judge import Listing, View, differences, missing
from tests.nemesis.recovery import Recovery, counted

HELD = {b"a": Item(b"1", 1, 1, 1), b"b": Item(b"2", 2, 5, 3)}


def view(items: Listing = HELD, revision: int = 5) -> View:
    return View((revision, items), (revision, items))


def test_equal_nodes() -> None:
    assert differences({"n1": view(), "n2": view(dict(HELD))}) == []


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (view({b"a": HELD[b"a"]}), "b'b'"),
        (view(HELD | {b"c": Item(b"3", 3, 3, 1)}), "b'c'"),
        (view(HELD | {b"a": Item(b"x", 1, 1, 1)}), "b'a'"),
        (view(HELD | {b"a": Item(b"1", 1, 4, 1)}), "b'a'"),
        (view(HELD | {b"a": Item(b"1", 1, 1, 2)}), "b'a'"),
        (view(HELD | {b"a": Item(b"1", 0, 1, 1)}), "b'a'"),
        (view(revision=6), "revision 6"),
    ],
    ids=["less", "more", "value", "mod_revision", "version", "create_revision", "store"],
)
@pytest.mark.parametrize("level", ["stale", "linearizable"])
def test_unequal_nodes(other: View, told: str, level: str) -> None:
    state = other.stale
    found = View(state, view().stale) if level == "stale" else View(view().stale, state)
    (complaint,) = differences({"n1": view(), "n2": found})
    assert told in complaint
    assert f"n2's {level}" in complaint


def test_the_reference_must_agree_with_itself() -> None:
    assert differences({"n1": View((5, HELD), (5, {})), "n2": view()})


def put(value: bytes, revision: int | None, version: int = 1) -> Operation:
    """To the key ``a``; without a revision nobody was told."""
    if revision is None:
        return Operation("c", Put(b"a", value), 0.0, math.inf, Outcome.UNKNOWN)
    return Operation("c", Put(b"a", value), 0.0, 1.0, Outcome.OK, Written(revision, version))


def delete(revision: int) -> Operation:
    return Operation("c", Delete(b"a"), 0.0, 1.0, Outcome.OK, Deleted(1, revision))


TWO = ("n1", "n2")
A2 = {b"a": Item(b"y", 1, 2, 2)}


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ([put(b"y", 2, 2), put(b"x", 1)], A2),
        ([put(b"x", 1), delete(2)], {}),
        ([put(b"x", 1), put(b"y", None)], A2),  # the one that nobody was told of came later
        ([put(b"x", 1), put(b"y", None)], {}),  # it may be a delete: the checkers know
        ([Operation("c", Get(b"z"), 0.0, 1.0, Outcome.OK, Read(None, 9))], {}),
    ],
    ids=["put", "delete", "unknown put", "unknown", "read"],
)
def test_what_was_acknowledged_is_there(history: History, state: Listing) -> None:
    assert missing(history, state) == []


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ([put(b"x", 1)], {}),
        ([put(b"x", 1), put(b"y", 2, 2)], {b"a": Item(b"x", 1, 1, 1)}),
        ([put(b"z", 2, 2)], A2),
        ([put(b"y", 2, 3)], A2),
        ([put(b"y", 1), delete(3)], A2),
        ([put(b"x", 3), put(b"y", None)], A2),
    ],
    ids=["gone", "older", "value", "version", "undead", "older than acknowledged"],
)
def test_what_was_acknowledged_is_missed(history: History, state: Listing) -> None:
    (complaint,) = missing(history, state)
    assert "b'a'" in complaint


def test_a_recovery_counts_from_when_a_node_and_a_majority_serve() -> None:
    """n1 was up all the time, n2 came back last, n3 with it makes the majority."""
    names = ("n1", "n2", "n5")
    recovery = counted([0.0, 4.0, 3.0], [3.5, 4.5, 3.25], names)
    assert recovery == Recovery(3.25, (0.0, 4.0, 3.0), (0.5, 0.5, 0.25), names)
    assert "n5 0.25 s (start 3.00 s)" in str(recovery)
    assert counted([0.0, 0.0, 6.0], [5.5, 0.5, 7.0], names).answers_s == (5.5, 0.5, 1.0)


@pytest.mark.parametrize(
    ("recovery", "sound"),
    [
        (Recovery(5.0, (0.0, 6.0), (5.0, 1.0), TWO), True),
        (Recovery(0.1, (0.0, 0.0), (0.0, 5.1), TWO), False),
        (Recovery(0.1, (30.0, 0.0), (0.0, 0.0), TWO), False),
        (Recovery(5.1, (5.0, 5.0), (0.1, 0.1), TWO), False),
    ],
)
def test_a_recovery_has_bounds(recovery: Recovery, sound: bool) -> None:
    assert recovery.sound == sound


def test_figures_add_up() -> None:
    one, other = Report(recoveries_s=[1.0], seconds=10.0), Report(recoveries_s=[2.5], violations=["bad"])
    one.operations.update((kind_of(o.action), outcome_of(o)) for o in (put(b"x", 1), put(b"y", None)))
    other.operations["put", "ok"] += 1
    other.faults["kill"] += 1
    one.add(other)
    document = one.document()
    assert document["operations"] == {"put": {"ok": 2, "unknown": 1}}
    assert (document["rounds"], document["faults_in_all"], document["worst_recovery_s"]) == (2, 1, 2.5)
    table = one.table(["slow-disk: no strace here"])
    assert "bad" in table
    assert "NOT TESTED HERE: slow-disk" in table
