"""Watches: every change of a key, a prefix or a range, in order, once, from one node after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from raftkv.errors import BadRequest
from raftkv.sdk.calling import Caller, Calls, Query
from raftkv.sdk.forms import Key, key_bytes, key_text, read_field
from raftkv.sdk.results import Event, read_item
from raftkv.sdk.streams import Sent, follow

PUT, DELETE = "put", "delete"


class Watch:
    """``async for event in client.watch(prefix="a/")``. It has no end: leave the loop, or ``aclose``.

    ``revision``: all changes up to it were given. A watch that goes on from ``revision + 1`` misses nothing.
    """

    def __init__(
        self,
        caller: Caller,
        *,
        key: Key | None,
        prefix: Key | None,
        start: Key | None,
        end: Key | None,
        from_revision: int | None,
        previous: bool,
    ) -> None:
        self.revision = 0 if from_revision is None else from_revision - 1
        query = _watch_query(key, prefix, start, end, previous)
        begin: Query = () if from_revision is None else (("from", str(from_revision)),)
        self._together = _told(self, follow(caller, "/v1/watch", query, start=begin))
        self._events = _one_by_one(self._together)

    def __aiter__(self) -> AsyncIterator[Event]:
        """The changes. Raises ``RevisionCompacted`` where some that are due are forgotten: its ``extra``
        says the ``oldest`` revision that can be read.
        """
        return self._events

    def together(self) -> AsyncIterator[tuple[Event, ...]]:
        """The same, all of a revision at once. An empty one says that it has come as far as ``revision``;
        the first one comes at once.
        """
        return self._together

    async def aclose(self) -> None:
        await self._events.aclose()
        await self._together.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class WatchCalls(Calls):
    def watch(
        self,
        key: Key | None = None,
        *,
        prefix: Key | None = None,
        start: Key | None = None,
        end: Key | None = None,
        from_revision: int | None = None,
        previous: bool = False,
    ) -> Watch:
        """Changes of ``key``, of the keys under ``prefix``, or from ``start`` to before ``end``; from now on,
        or all since ``from_revision``, that one included. ``previous``: with what was there before.
        """
        return Watch(
            self._caller,
            key=key,
            prefix=prefix,
            start=start,
            end=end,
            from_revision=from_revision,
            previous=previous,
        )


def _watch_query(
    key: Key | None, prefix: Key | None, start: Key | None, end: Key | None, previous: bool
) -> Query:
    kinds = (key is not None) + (prefix is not None) + (start is not None or end is not None)
    if kinds != 1:
        raise BadRequest("watch a key, a prefix, or from start to end; all keys: prefix=''")
    named = (("key", key), ("prefix", prefix), ("start", start), ("end", end))
    query: list[tuple[str, str | bytes]] = [(n, key_bytes(each)) for n, each in named if each is not None]
    return (*query, ("prev", "true")) if previous else tuple(query)


async def _told(watch: Watch, groups: Any) -> AsyncGenerator[tuple[Event, ...]]:
    async with aclosing(groups):
        async for group in groups:
            events = tuple(_event(sent) for sent in group.events if sent.name in (PUT, DELETE))
            last = group.events[-1].data.get("revision")
            if isinstance(last, int):
                watch.revision = max(watch.revision, last)
            yield events


async def _one_by_one(groups: AsyncGenerator[tuple[Event, ...]]) -> AsyncGenerator[Event]:
    async for events in groups:
        for event in events:
            yield event


def _event(sent: Sent) -> Event:
    data = sent.data
    previous: Mapping[str, Any] | None = data.get("prev")
    return Event(
        kind=sent.name,
        key=key_text(read_field(data, "key")),
        revision=int(data["revision"]),
        item=read_item(data) if sent.name == PUT else None,
        previous=None if previous is None else read_item(previous),
    )
