"""Watchers: each watches one range from its first revision to its last, through one node after the other.

They leave a node when it dies, when they hear nothing for a while, and now and then without a reason, and go
on at another with the id of the last event that they have read whole. All that one of them was sent, put
together, must be what the record has of its range: nothing lost, doubled, out of order or different, with the
ids that it should have; and where a progress event says that all up to a revision has come, it has.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from raftkv.verify.history import Outcome
from tests.nemesis.asking import Unexpected
from tests.nemesis.notes import PREFIX, Moments, Note, of
from tests.nemesis.pace import pause
from tests.nemesis.record import Change, Record
from tests.nemesis.roaming import AFTER_FAILURE_S, Roamer, Tell

SILENCE_S = 2.5
STAYS_S = (0.5, 12.0)
NOT_NOW = (429, 503, 504)
CONNECT_S = 1.0

Event = tuple[str, str, dict[str, Any]]
"""(name, id, data)"""


@dataclass(frozen=True, slots=True)
class Watched:
    """``start`` <= key < ``end`` (None: to the last). All of them hold ``LAST``."""

    query: Mapping[str, str]
    start: str
    end: str | None

    def holds(self, key: str) -> bool:
        return self.start <= key and (self.end is None or key < self.end)


LAST = f"{PREFIX}last"  # is put when nobody writes any more: a watcher that has seen it has seen all
RANGES = {
    "all": Watched({"prefix": ""}, "", None),
    "workloads": Watched({"prefix": PREFIX, "prev": "true"}, PREFIX, "w0"),
    "lasting": Watched({"start": "lasting/"}, "lasting/", None),
    "locks": Watched(
        {"start": f"{PREFIX}fence/", "end": f"{LAST}\x01", "prev": "true"}, f"{PREFIX}fence/", f"{LAST}\x01"
    ),
}


class Watcher(Roamer):
    def __init__(self, name: str, nodes: list[str], chance: random.Random, tell: Tell) -> None:
        """``name``: of a range, a dot, anything."""
        super().__init__(name, nodes, chance)
        self._range = RANGES[name.rpartition(".")[2]]
        self._tell = tell
        self._position: str | None = None  # the id of the last event
        self._streams = 0
        self._seen_last = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Until it has seen ``LAST``."""
        async with aiohttp.ClientSession() as session:
            while not self._seen_last:
                self._streams += 1
                stays_s = self.chance.uniform(*STAYS_S)
                try:
                    async with asyncio.timeout(stays_s):
                        await self._watch(session)
                except (aiohttp.ClientError, TimeoutError):
                    await pause(AFTER_FAILURE_S)
                self.move()

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """One stream, to its end."""
        query = {**self._range.query}
        headers = {}
        if self._position is None:
            query["from"] = "1"
        else:
            headers["Last-Event-ID"] = self._position
        if self.chance.random() < 0.3:
            query["consistency"] = "stale"
        lines = self.chance.random() < 0.5
        if lines:
            headers["Accept"] = "application/x-ndjson"
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=SILENCE_S)
        url = f"http://{self.node}/v1/watch"
        async with session.get(url, params=query, headers=headers, timeout=timeout) as reply:
            self._note("open", status=reply.status, asked={"after": self._position, "node": self.node})
            if reply.status != 200:
                if reply.status not in NOT_NOW:
                    raise Unexpected(f"{url} {query} {headers}: {reply.status} {await reply.text()}")
                await pause(AFTER_FAILURE_S)
                return
            async for name, position, data in _lines(reply.content) if lines else _events(reply.content):
                self._note("event", body={**data, "event": name, "id": position})
                self._position = position
                self._seen_last = self._seen_last or data.get("key") == LAST
                if self._seen_last or "end" in data:
                    return

    def _note(self, what: str, *, status: int = 200, asked: Any = None, body: Any = None) -> None:
        now = time.monotonic()
        asked = {"stream": self._streams, **(asked or {})}
        self._tell(Note(self.name, what, now, now, Outcome.OK, status, asked, body or {}))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[Event]:
    async for line in content:
        if line.endswith(b"\n"):
            data = json.loads(line)
            yield data.pop("event"), data.pop("id"), data


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[Event]:
    """Server-sent: an event is there with the empty line after it."""
    fields: dict[str, str] = {}
    async for line in content:
        text = line.decode()
        if text == "\n":
            if fields:
                yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}
        elif text.endswith("\n"):
            name, _, value = text.rstrip("\n").partition(":")
            fields[name] = value.removeprefix(" ")


# -- the judge ---------------------------------------------------------------------------------------------


def judge(notes: Sequence[Note], record: Record, moments: Moments) -> list[str]:
    """What is wrong, in words. The order of events says all: ``moments`` isn't needed."""
    by_watcher: defaultdict[str, list[Note]] = defaultdict(list)
    for note in of(notes, "event"):
        by_watcher[note.client].append(note)
    complaints = []
    for name in sorted({note.client for note in of(notes, "open")}):
        complaint = _judge_one(by_watcher[name], RANGES[name.rpartition(".")[2]], record)
        complaints += [f"{name}: {complaint}"] if complaint else []
    return complaints


def _judge_one(notes: Sequence[Note], watched: Watched, record: Record) -> str | None:
    """The first thing that is wrong with what one was sent, in order."""
    changes = [change for change in record.changes if watched.holds(change.key)]
    ids = _ids(changes)
    place = 0
    stream = 0
    position = "0"
    for note in notes:
        name, told, data = note.body["event"], note.body["id"], note.body
        if note.asked["stream"] != stream:
            stream = note.asked["stream"]
            if name != "progress" or told != position:
                return f"resumed after {position}, a stream begins with {name} {told}"
            continue
        if name == "progress":
            if place < len(changes) and changes[place].revision <= data["revision"]:
                return f"all up to {data['revision']} has come, it was told, and {changes[place]} has not"
            if _order(told) < _order(position):
                return f"progress {told} came after {position}"
        elif name not in ("put", "delete"):
            return f"it was told {data}"
        else:
            expected = changes[place] if place < len(changes) else None
            found = Change.of_event(name, data)
            if expected is None or found != expected:
                return f"after {position} it was sent {found}, where {expected} comes next"
            if told != ids[place]:
                return f"{found} has the id {told}, not {ids[place]}"
            if "prev" in watched.query and not _fits(data["prev"], record.at(found.key, found.revision - 1)):
                return f"before {found} there was not {data['prev']}"
            place += 1
        position = told
    # NB: a put of it that had no answer is repeated; a watcher ends with the first.
    last = min((change.revision for change in record.of_key.get(LAST, [])), default=record.last_revision)
    if place < len(changes) and changes[place].revision <= last:
        return f"the last that it was sent is {position}, and {changes[place]} comes next"
    return None


def _ids(changes: Sequence[Change]) -> list[str]:
    """The last of a revision has its number, the k-th of the others k behind it."""
    ids = []
    k = 0
    for change, following in zip(changes, [*changes[1:], None], strict=True):
        k += 1
        if following is not None and following.revision == change.revision:
            ids.append(f"{change.revision}.{k}")
        else:
            ids.append(str(change.revision))
            k = 0
    return ids


def _order(position: str) -> tuple[int, int]:
    """In the order of ids; the last of a revision comes after the others."""
    revision, point, k = position.partition(".")
    return int(revision), int(k) if point else 1 << 62


def _fits(told: dict[str, Any] | None, change: Change | None) -> bool:
    if told is None or change is None:
        return told is None and change is None
    return (told["value"], told["mod_revision"]) == (change.value, change.revision)


def figures(notes: Sequence[Note]) -> Counter[str]:
    opened = [note for note in of(notes, "open") if note.status == 200]
    last: dict[str, str] = {}
    resumed = 0
    for note in opened:
        resumed += (
            last.get(note.client, note.asked["node"]) != note.asked["node"]
            and note.asked["after"] is not None
        )
        last[note.client] = note.asked["node"]
    events = sum(note.body["event"] in ("put", "delete") for note in of(notes, "event"))
    return Counter({"watches resumed elsewhere": resumed, "events watched": events})
