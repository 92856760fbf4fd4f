"""A view: what is under a prefix, held in this program and kept up to date by a watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from types import TracebackType
from typing import Self

from raftkv.errors import RaftkvError
from raftkv.sdk.calling import Caller
from raftkv.sdk.forms import Key, key_text
from raftkv.sdk.kv import KvCalls
from raftkv.sdk.results import Event, Item
from raftkv.sdk.watching import PUT, Watch, WatchCalls

_PAUSE_S = 0.2
_COMPACTED = "compacted"


class View(Mapping[str, Item]):
    """A mapping of keys to items, in no order, as they were at ``revision``: whole revisions only. Reading it
    asks nobody, and may be done in any thread. It may be behind: ``wait_for`` a revision that a write gave.

    Changes that came while it was cut off for so long that the cluster has forgotten them are made good by
    reading all anew.
    """

    def __init__(self, caller: Caller, prefix: Key) -> None:
        self._prefix = prefix
        self._caller = caller
        self._items: dict[str, Item] = {}
        self.revision = 0
        self._changes = 0  # how often something in it has become another
        self._moved = asyncio.Event()  # set and replaced each time the revision grows
        self._task: asyncio.Task[None] | None = None

    def __getitem__(self, key: Key) -> Item:
        return self._items[key if isinstance(key, str) else key_text(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items))  # NB: a copy, for it may change meanwhile

    def __len__(self) -> int:
        return len(self._items)

    def value(self, key: Key, default: bytes | None = None) -> bytes | None:
        """The key's value, ``default`` where there is none."""
        item = self._items.get(key if isinstance(key, str) else key_text(key))
        return default if item is None else item.value

    async def wait_for(self, revision: int, timeout: float | None = None) -> None:
        """Return when the view is at ``revision`` or beyond it. Raises ``TimeoutError``, and what ended the
        view, if it has ended.
        """
        async with asyncio.timeout(timeout):
            while self.revision < revision:
                await self._until_moved()

    async def changed(self, timeout: float | None = None) -> int:
        """Return when it has changed since now: its revision. Raises as ``wait_for``."""
        seen = self.revision
        async with asyncio.timeout(timeout):
            while self.revision == seen:
                await self._until_moved()
        return self.revision

    async def changes(self) -> AsyncGenerator[dict[str, Item]]:
        """All that is in it, at once, and again after each change; of those that come faster than they are
        taken, the last. A dict of its own each time, and of one revision, whoever reads it. It has no end;
        raises as ``wait_for``.
        """
        seen = -1
        while True:
            if self._changes == seen:
                await self._until_moved()
            else:
                seen = self._changes
                yield self._items.copy()

    async def _until_moved(self) -> None:
        following = self._task
        if following is None:
            raise RuntimeError("this view is closed")
        moving = asyncio.create_task(self._moved.wait())
        try:
            await asyncio.wait({moving, following}, return_when=asyncio.FIRST_COMPLETED)
            if following.cancelled():
                raise RuntimeError("this view is closed")
            if following.done():
                following.result()
        finally:
            moving.cancel()

    async def start(self) -> None:
        """Read all that is there. Raises ``RaftkvError``."""
        await self._load()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _load(self) -> None:
        items: dict[str, Item] = {}
        calls, cursor, revision = KvCalls(self._caller), None, 0
        while True:
            page = await calls.page(prefix=self._prefix, limit=500, cursor=cursor)
            items.update((item.key, item) for item in page.items)
            cursor, revision = page.cursor, page.revision
            if cursor is None:
                break
        self._items = items
        self._changes += 1
        self._move(revision)

    async def _follow(self) -> None:
        while True:
            watch = WatchCalls(self._caller).watch(prefix=self._prefix, from_revision=self.revision + 1)
            try:
                async with watch:
                    await self._apply(watch)
            except RaftkvError as error:
                if error.code != _COMPACTED:
                    raise
            await self._load_anew()

    async def _load_anew(self) -> None:
        while True:
            try:
                await self._load()
            except RaftkvError as error:
                if error.status < 429:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    async def _apply(self, watch: Watch) -> None:
        async for events in watch.together():
            for event in events:
                self._note(event)
            self._changes += bool(events)
            self._move(watch.revision)

    def _note(self, event: Event) -> None:
        if event.kind == PUT and event.item is not None:
            self._items[event.key] = event.item
        else:
            self._items.pop(event.key, None)

    def _move(self, revision: int) -> None:
        if revision > self.revision:
            self.revision = revision
            self._moved.set()
            self._moved = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
