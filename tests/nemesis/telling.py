"""Notes and records for tests of the judges, in few words."""

from __future__ import annotations

import math
from typing import Any

from raftkv.verify.history import Outcome
from tests.nemesis.notes import Moments, Note, sightings
from tests.nemesis.record import Change, Record


def note(what: str, call: float, end: float, **rest: Any) -> Note:
    """Answered well, unless ``rest`` says otherwise."""
    given = {"client": "c.1", "outcome": Outcome.OK, "status": 200, **rest}
    return Note(what=what, call=call, end=end, **given)


def unknown(what: str, call: float, **rest: Any) -> Note:
    return note(what, call, math.inf, outcome=Outcome.UNKNOWN, status=0, **rest)


def record(*changes: tuple[int, str, str | None] | tuple[int, str, str | None, int]) -> Record:
    """(revision, key, value, lease or nothing); what follows from those before is filled in."""
    told: list[Change] = []
    for revision, key, value, *lease in changes:
        old = Record(told).at(key, revision - 1)
        if value is None:
            told.append(Change(revision, key, None))
        else:
            created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
            told.append(Change(revision, key, value, created, version, *lease))
    return Record(told)


def moments(*notes: Note) -> Moments:
    return Moments(sightings([], notes))
