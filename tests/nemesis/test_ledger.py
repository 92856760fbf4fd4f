"""The judge of transactions says yes to what may be, and no to what may not."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.verify.history import Outcome
from tests.nemesis.ledger import ACCOUNTS, BALANCE, judge
from tests.nemesis.notes import Note
from tests.nemesis.record import Record
from tests.nemesis.telling import moments, note, record, unknown

GIVER, TAKER = ACCOUNTS[0], ACCOUNTS[1]
COUNTER = "w/counter/0"
SET_UP: dict[str, Any] = {"id": "set-up-0", "legs": dict.fromkeys(ACCOUNTS, BALANCE)}
MOVE: dict[str, Any] = {"id": "c.1-1", "legs": {GIVER: -5, TAKER: 5}, "known": [GIVER, 1]}
COUNT: dict[str, Any] = {"id": "c.1-2", "legs": {COUNTER: 1}}
REFUSED: dict[str, Any] = {"id": "c.1-3", "legs": {GIVER: -5, TAKER: 5}, "known": [GIVER, 1]}

THERE = record(
    *((1, key, "100") for key in ACCOUNTS),
    (1, "w/done/set-up", "set-up-0"),
    (2, GIVER, "95"),
    (2, TAKER, "105"),
    (2, "w/done/c.1", "c.1-1"),
    (3, COUNTER, "1"),
    (3, "w/done/c.1", "c.1-2"),
)


def answer(revision: int, *values: tuple[int, int]) -> dict[str, Any]:
    """(value, version) of each leg."""
    told = [{"increment": {"value": value, "version": version}} for value, version in values]
    return {"revision": revision, "succeeded": True, "results": [*told, {"put": {}}]}


def items(revision: int) -> list[dict[str, Any]]:
    there = [THERE.at(key, revision) for key in ACCOUNTS]
    return [
        {"key": each.key, "value": each.value, "mod_revision": each.revision, "version": each.version}
        for each in there
        if each is not None
    ]


def refusal(revision: int) -> dict[str, Any]:
    return {"revision": revision, "succeeded": False, "results": [{"get": {"items": items(revision)}}]}


def total(revision: int, shown: int, call: float = 4.0, **asked: Any) -> Note:
    """``shown``: the revision whose accounts it has."""
    return note("total", call, call + 1, asked=asked, body={"revision": revision, "items": items(shown)})


def set_up() -> Note:
    return note("txn", 0, 1, asked=SET_UP, body=answer(1, *[(100, 1)] * len(ACCOUNTS)))


MOVED = note("txn", 1, 2, asked=MOVE, body=answer(2, (95, 2), (105, 2)))
COUNTED = note("txn", 2, 3, asked=COUNT, body=answer(3, (1, 1)))


def told(*notes: Note, there: Record = THERE) -> list[str]:
    return judge([set_up(), *notes], there, moments(set_up(), *notes))


@pytest.mark.parametrize(
    "notes",
    [
        [MOVED, COUNTED, note("txn", 3, 4, asked=REFUSED, body=refusal(3)), total(3, 3)],
        [unknown("txn", 1, asked=MOVE), unknown("txn", 1, asked=COUNT)],
        [MOVED, unknown("txn", 1, asked=COUNT), note("txn", 3, 4, asked=COUNT, body=answer(3, (1, 1)))],
        [MOVED, COUNTED, unknown("txn", 1, asked={**REFUSED, "id": "c.1-9"})],
        [MOVED, COUNTED, total(1, 1, stale=True), total(3, 2, at=2), total(0, 0, stale=True)],
        [MOVED, COUNTED, total(1, 1, call=0.5)],
    ],
    ids=["answered", "unknown", "repeated", "never", "past", "early"],
)
def test_what_may_be(notes: list[Note]) -> None:
    assert told(*notes) == []


TWICE = record(
    *((change.revision, change.key, change.value) for change in THERE.changes),
    (4, COUNTER, "2"),
    (4, "w/done/c.1", "c.1-2"),
)
HALF = record(
    *((change.revision, change.key, change.value) for change in THERE.changes),
    (4, GIVER, "90"),
    (4, "w/done/c.1", "c.1-3"),
)
UNMARKED = record(
    *((change.revision, change.key, change.value) for change in THERE.changes), (4, GIVER, "90")
)


@pytest.mark.parametrize(
    ("notes", "there", "words"),
    [
        ([MOVED, COUNTED], TWICE, "c.1-2 was done at [3, 4]"),
        ([MOVED, COUNTED, unknown("txn", 3, asked=REFUSED)], HALF, "revision 4 is"),
        ([MOVED, COUNTED], UNMARKED, "no transaction did revision 4"),
        ([MOVED], THERE, "nobody asked for c.1-2"),
        ([MOVED, COUNTED, note("txn", 3, 4, asked=REFUSED, body=answer(4))], THERE, "is found at []"),
        ([MOVED, note("txn", 2, 3, asked=COUNT, body=refusal(3))], THERE, "told as not done"),
        (
            [MOVED, Note("c.1", "txn", 2, 3, Outcome.FAIL, asked=COUNT)],
            THERE,
            "told as never done",
        ),
        (
            [MOVED, COUNTED, note("txn", 4, 5, asked=COUNT, body=answer(4, (2, 2)))],
            THERE,
            "answered differently",
        ),
        ([MOVED, note("txn", 2, 3, asked=COUNT, body=answer(3, (2, 1)))], THERE, "was answered [(2, 1)]"),
        (
            [COUNTED, note("txn", 1, 2, asked={**MOVE, "known": [GIVER, 0]}, body=MOVED.body)],
            THERE,
            "did not hold",
        ),
        (
            [MOVED, COUNTED, note("txn", 3, 4, asked={**REFUSED, "known": [GIVER, 2]}, body=refusal(3))],
            THERE,
            "though its condition held",
        ),
        (
            [MOVED, note("txn", 6, 7, asked=COUNT, body=answer(3, (1, 1))), total(3, 3)],
            THERE,
            "was seen before",
        ),
        ([COUNTED, note("txn", 3.5, 4, asked=MOVE, body=MOVED.body)], THERE, "3 was told before"),
        ([MOVED, COUNTED, total(2, 2)], THERE, "3 was told before"),
        ([MOVED, COUNTED, total(3, 1)], THERE, "where there is"),
        ([MOVED, COUNTED, total(2, 1, stale=True)], THERE, "where there is"),
        ([MOVED, COUNTED, total(3, 1, at=2)], THERE, "where there is"),
    ],
)
def test_what_may_not(notes: list[Note], there: Record, words: str) -> None:
    found = told(*notes, there=there)
    assert any(words in complaint for complaint in found), found


def test_the_sum_is_looked_at_by_itself() -> None:
    """Where the record would have it so, too."""
    lost = record(*((1, key, "100") for key in ACCOUNTS[1:]), (1, "w/done/set-up", "set-up-0"))
    body = {
        "revision": 1,
        "items": [{"key": key, "value": "100", "mod_revision": 1, "version": 1} for key in ACCOUNTS[1:]],
    }
    assert any("together have 500" in each for each in told(note("total", 2, 3, body=body), there=lost))
