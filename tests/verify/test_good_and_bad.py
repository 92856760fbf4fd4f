"""Histories known to be good or bad, each for one reason. Bad ones say which checker must refuse them."""

from __future__ import annotations

import pytest

from raftkv.verify import linearizability, revisions
from raftkv.verify.history import Cas, Operation, Refused, Written
from raftkv.verify.models import Register
from raftkv.verify.verdict import Answer
from tests.verify.notation import ABSENT, LOST, at, delete, get, operation, page, put

History = list[Operation]

GOOD: dict[str, History] = {
    "nothing": [],
    "a read sees the write before it": [put("c1", "a=1", 0, 1, 1), get("c2", "a=1", 2, 3, 1, mod=1)],
    "concurrent: the read may be first": [put("c1", "a=1", 0, 4, 1), get("c2", "a", 1, 2, 0)],
    "concurrent: the read may be last": [put("c1", "a=1", 0, 4, 1), get("c2", "a=1", 1, 2, 1, mod=1)],
    "touching intervals overlap": [put("c1", "a=1", 0, 2, 1), get("c2", "a", 2, 3, 0)],
    "an unknown write that surfaces late": [
        put("c1", "a=1", 0, 1, 1),
        put("c2", "a=2", 2, LOST),
        get("c3", "a=1", 3, 4, 1, mod=1, version=1),
        get("c3", "a=1", 50, 51, 1, mod=1, version=1),
        get("c3", "a=2", 90, 91, 2, mod=2, version=2),
    ],
    "an unknown write that never happens": [
        put("c1", "a=1", 0, 1, 1),
        put("c2", "a=2", 2, LOST),
        put("c1", "a=3", 5, 6, 2, version=2),
        get("c3", "a=3", 7, 8, 2, mod=2, version=2),
    ],
    "an unknown write that nobody saw, but the revision after it": [
        put("c1", "a=1", 0, 1, 1, version=1),
        put("c2", "a=2", 2, LOST),
        put("c1", "a=3", 5, 6, 3, version=3),
    ],
    "an unknown delete": [
        put("c1", "a=1", 0, 1, 1),
        delete("c2", "a", 2, LOST),
        get("c1", "a=1", 3, 4, 1, mod=1),
        get("c1", "a", 5, 6, 2),
        put("c1", "a=2", 7, 8, 3, version=1),
    ],
    "of two unknown writes the later is first": [
        put("c1", "a=1", 0, LOST),
        put("c2", "a=2", 1, LOST),
        get("c3", "a=2", 2, 3, 1, mod=1, version=1),
        get("c3", "a=1", 4, 5, 2, mod=2, version=2),
    ],
    "of two unknown writes the empty one was seen, and the other": [
        put("c1", "a=x", 0, LOST),
        put("c2", "a=", 1, LOST),
        put("c2", "a=", 1, LOST),
        get("c3", "a=", 2, 3, 1, mod=1, version=1),
        put("c3", "a=2", 4, 5, 3, version=3),
    ],
    "a condition on what an unknown write made": [
        put("c1", "a=1", 0, LOST),
        put("c2", "a=2", 2, 3, 2, given=at(1), version=2),
    ],
    "of two creators one is refused": [
        put("c1", "a=1", 0, 5, 1, given=ABSENT, version=1),
        put("c2", "a=2", 0, 5, 1, given=ABSENT, refused_at=1),
    ],
    "a delete of nothing": [delete("c1", "a", 0, 1, 0, deleted=0)],
    "a page": [put("c1", "a=1", 0, 1, 1), put("c1", "b=2", 2, 3, 2), page("c2", "a=1 b=2", 4, 5, 2)],
    "a page that an unknown delete shortened": [
        put("c1", "a=1", 0, 1, 1),
        delete("c2", "a", 2, LOST),
        page("c2", "", 4, 5, 2),
    ],
    "a first page": [
        put("c1", "a=1", 0, 1, 1),
        put("c1", "b=2", 2, 3, 2),
        page("c2", "a=1", 4, 5, 2, limit=1, more=True),
    ],
    "a stale read may be old": [
        put("c1", "a=1", 0, 1, 1),
        put("c1", "a=2", 2, 3, 2),
        get("c2", "a=1", 4, 5, 1, mod=1, stale=True),
    ],
}

# name -> (the history, whether revisions refuse it, whether the search of one key does)
BAD: dict[str, tuple[History, bool, bool]] = {
    "stale read": (
        [put("c1", "a=1", 0, 1, 1), put("c1", "a=2", 2, 3, 2), get("c2", "a=1", 4, 5, 1, mod=1)],
        True,
        True,
    ),
    "stale read, without revisions": (
        [put("c1", "a=1", 0, 1), put("c1", "a=2", 2, 3), get("c2", "a=1", 4, 5)],
        False,
        True,
    ),
    "stale read of another key's time": (
        [put("c1", "a=1", 0, 1, 1), put("c1", "b=1", 2, 3, 2), get("c2", "a=1", 4, 5, 1, mod=1)],
        True,
        False,  # the key alone can't tell
    ),
    "lost update: both replaced revision 1": (
        [
            put("c1", "a=1", 0, 1, 1),
            put("c1", "a=2", 2, 5, 2, given=at(1)),
            put("c2", "a=3", 2, 5, 3, given=at(1)),
        ],
        True,
        True,
    ),
    "lost write": ([put("c1", "a=1", 0, 1, 1), get("c2", "a", 2, 3, 1)], True, True),
    "lost write, its revision too": ([put("c1", "a=1", 0, 1, 1), get("c2", "a", 2, 3, 0)], True, True),
    "a put applied twice": (
        [put("c1", "a=1", 0, 1, 1, version=1), get("c2", "a=1", 2, 3, 2, mod=2, version=2)],
        True,
        True,
    ),
    "an unknown put applied twice": (
        [
            put("c1", "a=1", 0, LOST),
            get("c2", "a=1", 2, 3, 1, mod=1, version=1),
            put("c2", "a=2", 4, 5, 2, version=2),
            get("c2", "a=1", 6, 7, 3, mod=3, version=3),
        ],
        True,
        True,
    ),
    "a read from the future": (
        [get("c2", "a=1", 0, 1, 1, mod=1), put("c1", "a=1", 2, 3, 1)],
        True,
        True,
    ),
    "an unknown write seen before it was asked for": (
        [get("c2", "a=1", 0, 1, 1, mod=1), put("c1", "a=1", 2, LOST)],
        True,
        True,
    ),
    "a value that nobody wrote": ([put("c1", "a=1", 0, 1, 1), get("c2", "a=9", 2, 3, 1, mod=1)], True, True),
    "a condition that wrongly held": (
        [put("c1", "a=1", 0, 1, 1), put("c2", "a=2", 2, 3, 2, given=ABSENT)],
        True,
        True,
    ),
    "a condition that wrongly failed": (
        [put("c1", "a=1", 0, 1, 1), put("c2", "a=2", 2, 3, 1, given=at(1), refused_at=1)],
        True,
        True,
    ),
    "refused without a condition": ([put("c2", "a=2", 2, 3, 0, refused_at=0)], True, True),
    "reads of two clients go back in time": (
        [
            put("c1", "a=1", 0, 1, 1),
            put("c1", "a=2", 2, 20, 2),
            get("c2", "a=2", 3, 4, 2, mod=2),
            get("c3", "a=1", 5, 6, 1, mod=1),
        ],
        True,
        True,
    ),
    "an unknown write comes and goes": (
        [
            put("c1", "a=1", 0, 1, 1),
            put("c2", "a=2", 2, LOST),
            get("c3", "a=2", 3, 4, 2, mod=2),
            get("c3", "a=1", 5, 6, 2, mod=1),
        ],
        True,
        True,
    ),
    "two writes with one revision": (
        [put("c1", "a=1", 0, 1, 1), put("c2", "b=1", 0, 1, 1)],
        True,
        False,
    ),
    "two writes of a key with one revision": (
        [put("c1", "a=1", 0, 1, 1), put("c2", "a=2", 2, 3, 1)],
        True,
        True,
    ),
    "a delete with the revision of its put": (
        [put("c1", "a=1", 0, 1, 1), delete("c2", "a", 2, 3, 1)],
        True,
        True,
    ),
    "an unknown write seen at a revision before its time": (
        [
            put("c1", "b=1", 0, 1, 1),
            put("c1", "a=1", 2, 3, 2),
            put("c2", "a=x", 4, LOST),
            put("c3", "a=x", 4, LOST),
            get("c4", "a=x", 5, 6, 3, mod=1),
        ],
        True,
        True,
    ),
    "a page that promises more": (
        [put("c1", "a=1", 0, 1, 1), page("c2", "a=1", 4, 5, 1, limit=1, more=True)],
        True,
        False,
    ),
    "revisions against real time": (
        [put("c1", "a=1", 0, 1, 2), put("c2", "b=1", 2, 3, 1)],
        True,
        False,
    ),
    "a revision that no write took": ([put("c1", "a=1", 0, 1, 2)], True, False),
    "a revision taken before its unknown write": (
        [put("c1", "a=1", 0, 1, 2), put("c2", "b=1", 2, LOST)],
        True,
        False,
    ),
    "a wrong version": ([put("c1", "a=1", 0, 1, 1, version=2)], True, True),
    "a delete of what was not there": ([delete("c1", "a", 0, 1, 1)], True, True),
    "a delete that found nothing, wrongly": (
        [put("c1", "a=1", 0, 1, 1), delete("c1", "a", 2, 3, 1, deleted=0)],
        True,
        True,
    ),
    "a page without a key": (
        [put("c1", "a=1", 0, 1, 1), put("c1", "b=2", 2, 3, 2), page("c2", "a=1", 4, 5, 2)],
        True,
        True,
    ),
    "a page of two times": (
        [put("c1", "a=1", 0, 1, 1), put("c1", "b=2", 2, 3, 2), page("c2", "a=1 b=2", 0, 5, 1)],
        True,
        True,
    ),
    "a page that hides the next": (
        [put("c1", "a=1", 0, 1, 1), put("c1", "b=2", 2, 3, 2), page("c2", "a=1", 4, 5, 2, limit=1)],
        True,
        False,
    ),
    "a stale read of what never was": (
        [put("c1", "a=1", 0, 1, 1), put("c1", "a=2", 2, 3, 2), get("c2", "a=1", 4, 5, 2, mod=1, stale=True)],
        True,
        False,
    ),
    "a stale read of an uncommitted write": (
        [get("c2", "a=1", 0, 1, 1, mod=1, stale=True), put("c1", "a=2", 2, 3, 1)],
        True,
        False,
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    for verdict in (revisions.check(GOOD[name]), linearizability.check(GOOD[name])):
        assert verdict.answer is Answer.LINEARIZABLE, verdict.reason


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    history, by_revisions, by_search = BAD[name]
    assert (not revisions.check(history), not linearizability.check(history)) == (by_revisions, by_search)


@pytest.mark.parametrize("name", BAD)
def test_a_refusal_names_who_and_why(name: str) -> None:
    history, by_revisions, by_search = BAD[name]
    verdicts = [revisions.check(history)] * by_revisions + [linearizability.check(history)] * by_search
    for verdict in verdicts:
        assert verdict.answer is Answer.REFUSED
        assert verdict.reason
        assert "\n" not in verdict.reason
        assert verdict.culprits
        assert set(verdict.culprits) <= set(history)


def cas(client: str, expected: str, value: str, call: float, end: float, *, done: bool) -> Operation:
    action = Cas(b"a", expected.encode(), value.encode())
    return operation(client, action, call, end, None if end == LOST else Written() if done else Refused())


@pytest.mark.parametrize(
    ("good", "history"),
    [
        (
            True,
            [
                put("c1", "a=1", 0, 1),
                cas("c1", "1", "2", 2, 3, done=True),
                cas("c2", "1", "3", 2, 3, done=False),
            ],
        ),
        (
            False,
            [
                put("c1", "a=1", 0, 1),
                cas("c1", "1", "2", 2, 3, done=True),
                cas("c2", "1", "3", 2, 3, done=True),
            ],
        ),
        (False, [put("c1", "a=1", 0, 1), cas("c1", "1", "2", 2, 3, done=False)]),
        (False, [put("c1", "a=1", 0, 1), cas("c1", "9", "2", 2, 3, done=True)]),
        (True, [put("c1", "a=1", 0, 1), cas("c1", "1", "2", 2, LOST, done=True), get("c2", "a=2", 5, 6)]),
        (True, [put("c1", "a=1", 0, 1), cas("c1", "1", "2", 2, LOST, done=True), get("c2", "a=1", 5, 6)]),
        (False, [put("c1", "a=1", 0, 1), cas("c1", "7", "2", 2, LOST, done=True), get("c2", "a=2", 5, 6)]),
        (True, [put("c1", "a=1", 0, 1), delete("c1", "a", 2, LOST), get("c1", "a", 4, 5)]),
    ],
)
def test_register(good: bool, history: History) -> None:
    assert bool(linearizability.check(history, Register())) is good


SHARED = [
    put("c1", "a=1", 0, 1, 2, version=1),
    put("c2", "a=2", 2, LOST),
    get("c3", "a=2", 3, 4, 7, mod=5, version=2),
]


def test_others_write_other_keys() -> None:
    """Their revisions are missing without a write that explains it, and only theirs may."""
    assert not revisions.check(SHARED)
    assert revisions.check(SHARED, others={1, 3, 4, 6, 7, 8})
    assert "belong to no write" in revisions.check(SHARED, others={1, 3, 6, 7}).reason


@pytest.mark.parametrize("theirs", [2, 5])
def test_others_have_their_own_revisions(theirs: int) -> None:
    """Neither an answered write nor one that was only seen may have them."""
    assert "somebody else's" in revisions.check(SHARED, others={1, 3, 4, 6, 7, theirs}).reason
