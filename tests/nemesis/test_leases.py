"""The judges of leases and locks say yes to what may be, and no to what may not."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.verify.history import Outcome
from tests.nemesis import leases, locks
from tests.nemesis.notes import Note
from tests.nemesis.record import Record
from tests.nemesis.telling import moments, note, record, unknown

KEY = "w/lease/tenant.0/1"
LEASE: dict[str, Any] = {"key": KEY, "ttl_ms": 1_000, "lease": 7}
GRANTED = note("grant", 0.0, 0.1, asked={"key": KEY, "ttl_ms": 1_000}, body={"lease": 7, "revision": 1})
PUT = note("put", 0.2, 0.3, asked=LEASE, body={"revision": 2, "lease": 7})
KEPT = note("keepalive", 0.8, 0.9, asked=LEASE, body={"lease": 7})
ENDED = record((1, "w/x", "1"), (2, KEY, "{}", 7), (3, KEY, None), (4, "w/x", "2"))
OWN = note("put", 0.2, 0.3, asked={"key": KEY, "ttl_ms": 1_000}, body={"revision": 2, "lease": 7})


def seen(at: float, revision: int = 3) -> Note:
    return note("progress", at - 0.01, at, body={"revision": revision})


def no_such_lease(what: str, at: float) -> Note:
    return note(what, at - 0.01, at, status=404, asked=LEASE, body={"code": "no_such_lease"})


@pytest.mark.parametrize(
    "notes",
    [
        [GRANTED, PUT, KEPT, seen(1.81, 4)],
        [GRANTED, PUT, no_such_lease("keepalive", 1.01), seen(1.02)],
        [GRANTED, PUT, KEPT, unknown("revoke", 1.2, asked=LEASE), seen(1.21)],
        [GRANTED, PUT, KEPT, unknown("keepalive", 1.2, asked=LEASE), seen(1.81)],
        [GRANTED, unknown("put", 0.2, asked=LEASE), seen(1.1)],
        [OWN, seen(1.2)],
    ],
    ids=["kept", "ended", "revoked", "unknown", "untold", "own"],
)
def test_a_lease_may_end_so(notes: list[Note]) -> None:
    assert leases.judge(notes, ENDED, moments(*notes)) == []


@pytest.mark.parametrize(
    ("notes", "there", "words"),
    [
        ([GRANTED, PUT, KEPT, seen(1.79)], ENDED, "revision 3 deleted"),
        ([GRANTED, PUT, KEPT, seen(1.79, 4)], ENDED, "revision 3 deleted"),
        ([GRANTED, PUT, no_such_lease("look", 0.99)], ENDED, "look was told so"),
        ([GRANTED, PUT, KEPT, note("revoke", 1.7, 1.8, asked=LEASE), seen(1.6)], ENDED, "revision 3 deleted"),
        ([OWN, seen(1.1)], ENDED, "revision 3 deleted"),
        ([GRANTED, PUT], record((2, KEY, "{}", 7)), "is there when all leases have ended"),
        ([GRANTED, PUT], record((3, "w/x", "")), "acknowledged at 2"),
        ([GRANTED, PUT], record((2, KEY, "{}", 8), (3, KEY, None)), "to go with lease 7"),
    ],
    ids=["early", "by a later one", "told", "before it was revoked", "own", "undead", "lost", "another's"],
)
def test_a_lease_may_not_end_so(notes: list[Note], there: Record, words: str) -> None:
    (complaint,) = leases.judge(notes, there, moments(*notes))
    assert words in complaint


# -- locks -------------------------------------------------------------------------------------------------


def asked(token: int, lease: int = 7) -> dict[str, Any]:
    return {"lock": "one", "ttl_ms": 1_000, "lease": lease, "token": token}


def acquired(at: float, token: int, client: str, waited: float = 0.0, **rest: float) -> Note:
    body = {"lease": token + 100, "fencing_token": token}
    given = {"lock": "one", "ttl_ms": 1_000, **rest}
    return note("acquire", at - 0.1 - waited, at, client=client, asked=given, body=body)


def held(at: float, token: int, client: str) -> Note:
    return note("hold", at - 0.1, at, client=client, asked=asked(token), body={"ttl_ms": 1_000})


def released(at: float, token: int, outcome: Outcome = Outcome.OK) -> Note:
    return note("release", at, at + 0.1, asked=asked(token), outcome=outcome)


def wrote(at: float, token: int, revision: int, refused: bool = False) -> Note:
    body = {"revision": revision, "succeeded": refused, "results": []}
    return note("fenced", at - 0.1, at, asked=asked(token), body=body)


FENCE = "w/fence/one"
WRITTEN = record((5, FENCE, f"{3:012}"), (6, FENCE, f"{4:012}"))
EMPTY = record()


@pytest.mark.parametrize(
    ("notes", "there"),
    [
        ([acquired(1.0, 3, "a"), held(1.5, 3, "a"), acquired(2.45, 4, "b")], EMPTY),
        ([acquired(1.0, 3, "a"), released(1.2, 3), acquired(1.25, 4, "b")], EMPTY),
        ([acquired(1.0, 3, "a", waited=1.5), acquired(1.25, 4, "b")], EMPTY),  # not sure: it had waited
        ([acquired(1.0, 3, "a", renewed=0.3), acquired(1.35, 4, "b")], EMPTY),
        ([acquired(1.0, 3, "a"), wrote(1.3, 3, 5), acquired(2.1, 4, "b"), wrote(2.3, 4, 6)], WRITTEN),
        (
            [acquired(1.0, 3, "a"), wrote(1.3, 3, 5), acquired(2.1, 4, "b"), wrote(2.4, 3, 6, refused=True)],
            WRITTEN,
        ),
    ],
    ids=["kept", "released", "waited", "by a lease", "fenced", "refused"],
)
def test_a_lock_may_go_round_so(notes: list[Note], there: Record) -> None:
    assert locks.judge(notes, there, moments(*notes)) == []


@pytest.mark.parametrize(
    ("notes", "there", "words"),
    [
        ([acquired(1.0, 3, "a"), acquired(1.8, 4, "b")], EMPTY, "has two holders"),
        ([acquired(1.0, 3, "a"), held(1.5, 3, "a"), acquired(2.3, 4, "b")], EMPTY, "has two holders"),
        (
            [acquired(1.0, 3, "a"), held(1.9, 3, "a"), acquired(1.5, 4, "b"), released(1.6, 4)],
            EMPTY,
            "has two holders",
        ),
        ([acquired(1.0, 3, "a"), acquired(1.2, 4, "b"), released(1.3, 3)], EMPTY, "has two holders"),
        ([acquired(1.0, 3, "a", renewed=0.7), acquired(1.5, 4, "b")], EMPTY, "has two holders"),
        ([acquired(1.0, 4, "a"), released(1.1, 4), acquired(1.3, 3, "b")], EMPTY, "tokens don't grow"),
        ([acquired(1.0, 3, "a"), acquired(2.3, 3, "b")], EMPTY, "given twice"),
        ([acquired(1.0, 3, "a"), wrote(1.3, 3, 5, refused=True)], EMPTY, "valid token was refused"),
        ([wrote(1.3, 3, 6)], WRITTEN, "was acknowledged at 6"),
        ([], record((5, FENCE, f"{4:012}"), (6, FENCE, f"{3:012}")), "was written with token"),
    ],
)
def test_a_lock_may_not_go_round_so(notes: list[Note], there: Record, words: str) -> None:
    found = locks.judge(notes, there, moments(*notes))
    assert any(words in complaint for complaint in found), found
