"""Answers that don't end: events as they happen, as server-sent events or a line of JSON each.

Rules:

- All events of one revision leave in one write, and the id of an event is what goes on after it.
- Nothing is made ahead of what the socket takes. A client that takes nothing for too long is cut off; it
  knows the id of the last event that it has, and goes on there, on this node or another.
- The last event of a stream that the node itself ends says why, and where to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson
import structlog
from aiohttp import web

from raftkv.api.consistency import Freshness, common_headers
from raftkv.api.gone import while_connected
from raftkv.api.limits import Limits
from raftkv.errors import ShuttingDown, TooManyRequests
from raftkv.kv.watch import Compacted, Hub, Watcher
from raftkv.ports import Service

logger = structlog.get_logger(__name__)

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

Open = Callable[[Hub, Callable[[], None]], Watcher]


class Event(NamedTuple):
    """``id`` is what a client says to go on after it; None: it can't go on from there."""

    name: str
    id: str | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Taken:
    events: list[Event]
    more: bool = False  # there may be others already


class Source(Protocol):
    """Where the events of one stream come from."""

    @property
    def id(self) -> str | None:
        """What goes on after all that was taken."""
        ...

    def begin(self) -> list[Event]:
        """The first events, at once."""
        ...

    def take(self) -> Taken:
        """What has happened since. Takes no longer than some milliseconds. Raises ``Compacted``."""
        ...


class States:
    """A source of one thing's states: ``name`` events with what ``look`` gives, each time it has become
    something else. It may skip one that didn't last; it can't go on, only begin again.
    """

    id = None

    def __init__(self, watcher: Watcher, name: str, look: Callable[[], dict[str, Any]]) -> None:
        self._watcher = watcher
        self._name = name
        self._look = look
        self._last: dict[str, Any] | None = None

    def begin(self) -> list[Event]:
        return self.take().events

    def take(self) -> Taken:
        self._watcher.skip()
        state = self._look()
        if state == self._last:
            return Taken([])
        self._last = state
        return Taken([Event(self._name, None, state)])


class Bell:
    """Rung from a callback, awaited by one task; rings aren't counted."""

    __slots__ = ("_future", "_rung")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        self._rung = False

    def ring(self) -> None:
        self._rung = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def rung(self) -> None:
        """Until it has been rung since the last call."""
        if not self._rung:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._rung = False


class Places:
    """How many may watch, or wait, at a time on one node."""

    def __init__(self, hub: Hub, most: int) -> None:
        self._hub = hub
        self._most = most

    def check(self) -> None:
        """Raises ``TooManyRequests`` or ``ShuttingDown``."""
        if self._hub.is_closed:
            raise ShuttingDown("this node is stopping; watch on another", retry_after_ms=100)
        if len(self._hub) >= self._most:
            raise TooManyRequests(f"{self._most} watch on this node; ask another", retry_after_ms=1000)


class Streams:
    """Gives the answers of one node that don't end."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self.places = Places(service.hub, limits.max_watchers)

    async def answer(
        self,
        request: web.BaseRequest,
        freshness: Freshness,
        open_watcher: Open,
        source_of: Callable[[Watcher], Source],
    ) -> web.StreamResponse:
        """Until the client is gone, or what it is sent can't go on here. ``freshness`` is what its beginning
        has. Raises ``TooManyRequests`` and ``ShuttingDown``.
        """
        self.places.check()
        lines = NDJSON in request.headers.get("Accept", "")
        headers = common_headers(
            self._service, self._service.hub.revision, NDJSON if lines else f"{SSE}; charset=utf-8"
        )
        headers["Cache-Control"] = "no-store"
        headers["X-Accel-Buffering"] = "no"  # nginx holds back an answer otherwise
        freshness.note(headers)
        if request.method == "HEAD":
            return web.Response(headers=headers)
        response = web.StreamResponse(headers=headers)
        encode = _encode_line if lines else _encode
        stream = _Stream(self._service, self._limits, request, response, encode)
        stream.demands_quorum = freshness.staleness_ms is None
        bell = Bell()
        watcher = open_watcher(self._service.hub, bell.ring)
        try:
            await response.prepare(request)
            await while_connected(request, stream.run(source_of(watcher), bell))
        except ConnectionError:
            raise
        except Exception:
            logger.exception("a stream failed")  # too late for a problem document
            stream.abort()
            raise ConnectionResetError("the server made a mistake") from None
        finally:
            self._service.hub.remove(watcher)
        response.force_close()
        return response


class _Stream:
    """One answer under way."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        request: web.BaseRequest,
        response: web.StreamResponse,
        encode: Callable[[Event], bytes],
    ) -> None:
        self._service = service
        self._limits = limits
        self._request = request
        self._response = response
        self._encode = encode
        self.demands_quorum = True

    async def run(self, source: Source, bell: Bell) -> None:
        hub = self._service.hub
        beats = hub.beats
        await self._write(source.begin())
        while True:
            try:
                taken = source.take()
            except Compacted as gone:
                await self._write([_compacted(gone)])
                return
            await self._write(taken.events)
            if (why := self._why_not_on()) is not None:
                await self._write([_progress(source, hub, end=why)])
                return
            if taken.more:
                await asyncio.sleep(0)
                continue
            if beats != hub.beats:
                beats = hub.beats
                if not taken.events:
                    await self._write([_progress(source, hub)])
            await bell.rung()

    def _why_not_on(self) -> str | None:
        if self._service.hub.is_closed:
            return "this node is stopping"
        if self.demands_quorum:
            staleness_ms = self._service.staleness_ms()
            if staleness_ms is None or staleness_ms > self._limits.max_watch_staleness_ms:
                return "this node hears of no leader"
        return None

    async def _write(self, events: Iterable[Event]) -> None:
        data = b"".join(map(self._encode, events))
        if not data:
            return
        try:
            async with asyncio.timeout(self._limits.max_watch_stall_ms / 1000):
                await self._response.write(data)
        except TimeoutError:
            logger.info("a watcher was cut off: it takes nothing", revision=self._service.hub.revision)
            self.abort()
            raise ConnectionResetError("it takes nothing") from None

    def abort(self) -> None:
        """Cut the connection off: there is no other way to say that more should have come."""
        if self._request.transport is not None:
            self._request.transport.abort()


def _progress(source: Source, hub: Hub, end: str | None = None) -> Event:
    data: dict[str, Any] = {"revision": hub.revision}
    if source.id is not None and source.id.isdecimal():
        data["revision"] = int(source.id)
    if end is not None:
        data["end"] = end
    return Event("progress", source.id, data)


def _compacted(gone: Compacted) -> Event:
    data = {"oldest": gone.oldest + 1, "end": "the changes that come next are compacted: read anew"}
    return Event("compacted", None, data)


def _encode(event: Event) -> bytes:
    """As https://html.spec.whatwg.org/multipage/server-sent-events.html has it."""
    head = f"event: {event.name}\n" if event.id is None else f"id: {event.id}\nevent: {event.name}\n"
    return b"%sdata: %s\n\n" % (head.encode(), orjson.dumps(event.data))


def _encode_line(event: Event) -> bytes:
    head: dict[str, Any] = {"event": event.name}
    if event.id is not None:
        head["id"] = event.id
    return orjson.dumps({**head, **event.data}) + b"\n"
