"""Reads at all levels of consistency, of the keys that the clients of single operations write.

What they show goes into the history, as linearizable reads (by lease too) or stale ones: so the checkers see
that the first are linearizable, and that the others show a state that was. Here is how new it must be:

- lease: all that anybody was told before it began;
- bounded: all that anybody was told ``max_staleness`` before it began;
- session: the revision that was asked for, which is the highest that any of the readers has seen, who are one
  session;
- stale: what it showed before, and what was written, through the same connection (so: by the same process).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raftkv.verify.history import Get, Operation, Outcome, Put
from tests.nemesis.asking import perform
from tests.nemesis.clients import key_of
from tests.nemesis.notes import Moments, Note, of
from tests.nemesis.record import Record
from tests.nemesis.roaming import Roamer, Tell

THINK_S = 0.02
BOUNDS_MS = (50, 200, 1_000)
TIMEOUT_MS = 1_000
READ_TIMEOUT_MS = 300
# After a failure: the node may be cut off, and there stale reads are the most interesting.
STAYS = 0.7


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    stale: bool
    bound_ms: int | None = None
    by_lease: bool = False
    session: bool = False

    def query(self, least: int) -> dict[str, str]:
        return {
            **({"consistency": "lease"} if self.by_lease else {}),
            **({} if self.bound_ms is None else {"max_staleness": f"{self.bound_ms}ms"}),
            **({"min_revision": str(least)} if self.session else {}),
        }


def draw_level(chance: random.Random) -> Level:
    match chance.randrange(8):
        case 0 | 1:
            return Level("lease", stale=False, by_lease=True)
        case 2 | 3:
            return Level("bounded", stale=True, bound_ms=chance.choice(BOUNDS_MS))
        case 4:
            return Level("stale", stale=True)
        case 5 | 6:
            return Level("session", stale=True, session=True)
        case _:
            return Level("session", stale=False, by_lease=chance.random() < 0.5, session=True)


@dataclass(slots=True)
class Session:
    highest: int = 0  # revision that any of its readers has seen


class Reader(Roamer):
    """Writes now and then, too."""

    def __init__(
        self,
        name: str,
        nodes: list[str],
        chance: random.Random,
        tell: Tell,
        *,
        record: Callable[[Operation], None],
        session: Session,
    ) -> None:
        super().__init__(name, nodes, chance)
        self._tell = tell
        self._record = record
        self._session = session
        self._writes = 0

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            key = key_of(self.chance, time.monotonic())
            if self.chance.random() < 0.15:
                operation = await self._write(key)
            else:
                operation = await self._read(key, draw_level(self.chance))
            self._session.highest = max(self._session.highest, operation.revision or 0)
            failed = operation.outcome is not Outcome.OK and self.chance.random() >= STAYS
            await self.go_on(failed=failed, think_s=THINK_S)
        self.close()

    async def _write(self, key: bytes) -> Operation:
        self._writes += 1
        action = Put(key, f"{self.name}-{self._writes}".encode())
        operation = await perform(self.connection(), self.name, action, TIMEOUT_MS)
        return self._noted("write", operation, {})

    async def _read(self, key: bytes, level: Level) -> Operation:
        least = self._session.highest
        action, query = Get(key, stale=level.stale), level.query(least)
        operation = await perform(self.connection(), self.name, action, READ_TIMEOUT_MS, query)
        asked: dict[str, object] = {"linearizable": not level.stale}
        if level.bound_ms is not None:
            asked["bound_ms"] = level.bound_ms
        if level.session:
            asked["least"] = least
        return self._noted(level.name, operation, asked)

    def _noted(self, what: str, operation: Operation, asked: dict[str, object]) -> Operation:
        """NB: the connection is named by how often it was opened: another life of a node is another one."""
        self._record(operation)
        body = {"revision": operation.revision}
        asked["connection"] = f"{self.name} to {self.node}, the {self.connection().opened}th time"
        self._tell(
            Note(self.name, what, operation.call, operation.end, operation.outcome, asked=asked, body=body)
        )
        return operation


# -- the judge ---------------------------------------------------------------------------------------------


def judge(notes: Sequence[Note], record: Record, moments: Moments) -> list[str]:
    """What is wrong, in words. ``record`` isn't needed: what answers show is judged with the history."""
    complaints = []
    last: dict[str, int] = {}
    answers = of(notes, "write", "lease", "bounded", "stale", "session")
    for note in sorted(answers, key=lambda note: note.call):
        revision = note.revision
        if revision is None:
            continue
        asked = note.asked
        least, why = asked.get("least", 0), "the session had seen"
        if asked.get("linearizable"):
            told = moments.told_before(note.call)
            least, why = (told, "had been told before") if told > least else (least, why)
        if "bound_ms" in asked:
            bound_s = asked["bound_ms"] / 1000
            least, why = moments.told_before(note.call - bound_s), f"had been told {bound_s:g} s before"
        connection = asked["connection"]
        before = last.get(connection, 0)
        if before > least:
            least, why = before, f"had been seen through the same connection, of {connection},"
        if revision < least:
            complaints.append(f"a {note.what} read at {note.call:.3f} shows {revision}, but {why} {least}")
        last[connection] = max(before, revision)
    return complaints


def figures(notes: Sequence[Note]) -> Counter[str]:
    return Counter(
        {
            f"{what} reads": sum(note.outcome is Outcome.OK for note in of(notes, what))
            for what in ("lease", "bounded", "stale", "session")
        }
    )
