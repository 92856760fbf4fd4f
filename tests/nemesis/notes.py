"""What the workloads beyond single keys write down: who asked what, when, and what came of it.

One kind of line for all of them. Times are ``time.monotonic``, as in a history of operations; a ``Note`` with
an unknown outcome ends never. What is judged is in the workloads' own modules, what they have in common here:
when a revision was there, as far as anybody was told.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raftkv.verify.history import Operation, Outcome

# The keys of the workloads begin with it; those of single operations are all before it.
PREFIX = "w/"
OWN_KEYS = PREFIX.encode()


@dataclass(frozen=True, slots=True)
class Note:
    """``asked`` is the workload's own account of the request; ``body`` the answer's document."""

    client: str
    what: str
    call: float
    end: float
    outcome: Outcome
    status: int = 0  # of HTTP; 0: no answer
    asked: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """It was answered, and not by an error."""
        return self.outcome is Outcome.OK and self.status < 300

    @property
    def revision(self) -> int | None:
        """The store's as the answer tells it; None: it doesn't."""
        return self.body.get("revision") if self.outcome is Outcome.OK else None

    @property
    def code(self) -> str:
        """Of an error, else nothing."""
        return str(self.body.get("code", ""))


def write_note(note: Note) -> str:
    """A line, newline included."""
    return json.dumps(asdict(note)) + "\n"


def read_notes(path: Path) -> list[Note]:
    with path.open(encoding="utf-8") as lines:
        documents = (json.loads(line) for line in lines)
        return [Note(**{**each, "outcome": Outcome(each["outcome"])}) for each in documents]


Sighting = tuple[float, float, int]
"""(call, end, revision): who asked at ``call`` was told at ``end`` that the store has ``revision``."""


def sightings(operations: Iterable[Operation], notes: Iterable[Note]) -> Iterator[Sighting]:
    for operation in operations:
        if operation.outcome is Outcome.OK and operation.revision is not None:
            yield operation.call, operation.end, operation.revision
    for note in notes:
        if note.revision is not None:
            yield note.call, note.end, note.revision


class Moments:
    """When a revision was there: as far as any answer tells."""

    def __init__(self, seen: Iterable[Sighting]) -> None:
        by_end = sorted((end, revision) for _, end, revision in seen)
        self._ends: list[float] = [-math.inf]
        self._highest: list[int] = [0]
        for end, revision in by_end:
            if revision > self._highest[-1]:
                self._ends.append(end)
                self._highest.append(revision)

    def told_before(self, moment: float) -> int:
        """The highest revision that anybody had been told of before ``moment``."""
        return self._highest[max(0, bisect_left(self._ends, moment) - 1)]

    def known_at(self, revision: int) -> float:
        """When somebody had first been told of ``revision`` or a later one; infinity: nobody was."""
        place = bisect_left(self._highest, revision)
        return self._ends[place] if place < len(self._ends) else math.inf


def of(notes: Sequence[Note], *whats: str) -> list[Note]:
    return [note for note in notes if note.what in whats]
