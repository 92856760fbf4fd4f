"""The cluster's account of itself is believed only where it fits with what clients were told."""

from __future__ import annotations

import math

import pytest

from raftkv.verify.history import Delete, Deleted, History, Operation, Outcome, Put, Written
from tests.nemesis.notes import Moments, Note
from tests.nemesis.record import Change, Record, contradictions
from tests.nemesis.telling import moments, note, record

THERE = record((1, "w/x", "0"), (2, "a", "1"), (4, "a", "2"), (5, "a", None), (5, "w/x", "1"))


def put(revision: int, value: str, version: int, call: float = 0.0) -> Operation:
    return Operation("c", Put(b"a", value.encode()), call, call + 1, Outcome.OK, Written(revision, version))


UNKNOWN_DELETE = Operation("c", Delete(b"a"), 0.0, math.inf, Outcome.UNKNOWN)
DELETED = Operation("c", Delete(b"a"), 0.0, 1.0, Outcome.OK, Deleted(1, 5))
NEVER = Moments([])


def test_what_it_knows() -> None:
    assert THERE.at("a", 1) is None
    assert THERE.at("a", 3) == Change(2, "a", "1", 2, 1)
    assert THERE.at("a", 4) == Change(4, "a", "2", 2, 2)
    assert THERE.at("a", 5) is THERE.at("a", 99) is None
    assert THERE.others() == {1, 3}
    assert THERE.flaws() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([Change(2, "a", "1", 2, 1), Change(1, "b", "1", 1, 1)], "comes after"),
        ([Change(1, "a", None)], "was not there"),
        ([Change(1, "a", "1", 1, 2)], "version"),
        ([Change(1, "a", "1", 1, 1), Change(2, "a", "2", 2, 1)], "created"),
        ([Change(1, "a", "1", 1, 1), Change(1, "a", "2", 1, 1)], "twice"),
    ],
)
def test_flaws(changes: list[Change], told: str) -> None:
    assert any(told in flaw for flaw in Record(changes).flaws())


@pytest.mark.parametrize(
    "history",
    [
        [put(2, "1", 1), put(4, "2", 2), UNKNOWN_DELETE],
        [put(2, "1", 1), put(4, "2", 2), UNKNOWN_DELETE, UNKNOWN_DELETE],
    ],
)
def test_what_fits(history: History) -> None:
    assert contradictions(THERE, history, NEVER) == []


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([put(2, "1", 1), put(4, "2", 2)], "nobody asked for"),
        ([put(2, "1", 1), put(4, "2", 3), UNKNOWN_DELETE], "acknowledged was"),
        ([put(2, "1", 1), put(4, "3", 2), UNKNOWN_DELETE], "acknowledged was"),
        ([put(2, "1", 1), put(4, "2", 2), put(3, "2", 1), UNKNOWN_DELETE], "acknowledged was"),
        ([put(2, "1", 1), put(4, "2", 2), DELETED], "acknowledged was"),  # and something else with it
    ],
    ids=["unasked", "version", "value", "lost", "more"],
)
def test_what_does_not_fit(history: History, told: str) -> None:
    found = contradictions(THERE, history, NEVER)
    assert found
    assert all(told in complaint for complaint in found)


def test_nobody_sees_a_write_before_it_is_asked_for() -> None:
    history = [put(2, "1", 1), put(4, "2", 2, call=5.0), UNKNOWN_DELETE]
    early = Note("w", "progress", 4.9, 4.9, Outcome.OK, body={"revision": 4})
    (complaint,) = contradictions(THERE, history, moments(early))
    assert "revision 4 was seen before" in complaint


def test_moments() -> None:
    seen = moments(
        note("a", 0, 1.0, body={"revision": 3}),
        note("b", 0, 2.0, body={"revision": 2}),
        note("c", 0, 3.0, body={"revision": 5}),
        note("d", 0, 3.5),
    )
    assert [seen.told_before(moment) for moment in (1.0, 1.1, 3.0, 9.0)] == [0, 3, 3, 5]
    assert [seen.known_at(revision) for revision in (1, 3, 4, 5, 6)] == [1.0, 1.0, 3.0, 3.0, math.inf]
