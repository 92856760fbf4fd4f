"""``GET /v1/watch``: what changes, from any revision that is kept, in order, each change once.

An event's id is ``N``, its revision, if it is the last one that this stream has of it; the k-th of others is
``N.k``. So a client that goes on after the last id that it read loses nothing and gets nothing twice, also
where the connection broke within a revision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from aiohttp import web

from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency
from raftkv.api.envelope import envelope, key_fields
from raftkv.api.limits import Limits
from raftkv.api.operations import check_end
from raftkv.api.params import flag_of, number_of, parse_query
from raftkv.api.streams import Event, Streams, Taken
from raftkv.errors import BadRequest, RevisionCompacted
from raftkv.kv.machine import KvMachine
from raftkv.kv.row import item_of
from raftkv.kv.store import prefix_end
from raftkv.kv.watch import Change, Hub, Watcher
from raftkv.ports import Service

PATH = "/v1/watch"

_FIRST_KEY = b"\x01"  # before it are the store's own
_MAX_REVISION = 10**18 - 1
_PARAMS = ("key", "prefix", "start", "end", "from", "prev", *CONSISTENCY_PARAMS)
_ID = re.compile(r"([0-9]{1,18})(?:\.([1-9][0-9]{0,8}))?")


@dataclass(frozen=True, slots=True)
class Point:
    """All up to ``revision``, and the first ``events`` of the next one."""

    revision: int
    events: int = 0

    @staticmethod
    def parse(text: str) -> Point:
        match = _ID.fullmatch(text)
        if match is None or (match[2] and not int(match[1])):
            raise BadRequest(f"Last-Event-ID isn't one that this cluster gave: {text[:40]!r}")
        return Point(int(match[1]) - 1, int(match[2])) if match[2] else Point(int(match[1]))

    @property
    def id(self) -> str:
        return f"{self.revision + 1}.{self.events}" if self.events else str(self.revision)


class WatchHandlers:
    def __init__(self, service: Service, machine: KvMachine, limits: Limits, streams: Streams) -> None:
        self._service = service
        self._store = machine.store
        self._limits = limits
        self._streams = streams

    async def watch(self, request: web.BaseRequest) -> web.StreamResponse:
        params = parse_query(request.rel_url.raw_query_string, _PARAMS)
        opening = _opening_of(params, self._limits.max_key_bytes)
        with_prev = flag_of(params, "prev")
        point: Point | None = None
        if "from" in params:
            point = Point(number_of(params, "from", 1, 1, _MAX_REVISION) - 1)
        if "Last-Event-ID" in request.headers:  # it is later: an EventSource repeats its first query with it
            point = Point.parse(request.headers["Last-Event-ID"].strip())
        self._streams.places.check()
        freshness = await await_consistency(self._service, self._limits, params)
        await self._service.require("history", self._limits.request_timeout_ms)
        if point is None:
            point = Point(self._store.revision)
        history = self._store.history
        if history is not None and point.revision < history.compacted:
            raise RevisionCompacted(
                f"the changes before revision {history.compacted + 1} are compacted",
                extra={"oldest": history.compacted + 1},
            )
        begun = point

        def open_watcher(hub: Hub, wake: Callable[[], None]) -> Watcher:
            return opening(hub, begun.revision, wake)

        return await self._streams.answer(
            request, freshness, open_watcher, lambda watcher: Changes(watcher, begun, with_prev=with_prev)
        )


class Changes:
    """A source of each change that a watcher has, after ``point``."""

    def __init__(self, watcher: Watcher, point: Point, *, with_prev: bool) -> None:
        self._watcher = watcher
        self._point = point
        self._with_prev = with_prev

    @property
    def id(self) -> str:
        return self._point.id

    def begin(self) -> list[Event]:
        return [Event("progress", self._point.id, {"revision": self._point.revision})]

    def take(self) -> Taken:
        pulled = self._watcher.pull()
        events: list[Event] = []
        for revision, changes in groupby(pulled.changes, key=lambda change: change[0]):
            skipped = self._point.events if revision == self._point.revision + 1 else 0
            events += self._events_of(revision, list(changes))[skipped:]
        if self._watcher.position > self._point.revision:
            self._point = Point(self._watcher.position)
        return Taken(events, pulled.more)

    def _events_of(self, revision: int, changes: Sequence[Change]) -> list[Event]:
        events = []
        for number, (_, key, old, new) in enumerate(changes, start=1):
            event_id = Point(revision) if number == len(changes) else Point(revision - 1, number)
            data: dict[str, Any] = {"revision": revision}
            if new is None:
                data |= key_fields(key)
            else:
                data |= envelope(key, item_of(new))
            if self._with_prev:
                data["prev"] = None if old is None else envelope(key, item_of(old))
            events.append(Event("delete" if new is None else "put", event_id.id, data))
        return events


Opening = Callable[[Hub, int | None, Callable[[], None]], Watcher]


def _opening_of(params: dict[str, bytes], max_key_bytes: int) -> Opening:
    """How to watch what a query asks for."""
    kinds = ("key" in params, "prefix" in params, "start" in params or "end" in params)
    if sum(kinds) != 1:
        raise BadRequest("give one of key, prefix, or start and end; prefix= watches all keys")
    if "key" in params:
        key = params["key"]
        if not key or len(key) > max_key_bytes or key < _FIRST_KEY:
            raise BadRequest(f"a key has from 1 to {max_key_bytes} bytes, and doesn't begin with a NUL byte")
        return lambda hub, after, wake: hub.watch_key(key, after, wake)
    prefix = params.get("prefix", b"")
    if prefix[:1] == b"\0":
        raise BadRequest("no key begins with a NUL byte")
    if prefix:
        return lambda hub, after, wake: hub.watch_prefix(prefix, prefix_end(prefix), after, wake)
    start, end = max(params.get("start", _FIRST_KEY), _FIRST_KEY), params.get("end")
    check_end(end)
    return lambda hub, after, wake: hub.watch_range(start, end, after, wake)
