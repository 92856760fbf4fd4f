"""Tells those who wait here that a key of theirs has changed on this node's machine. A write costs nothing
for it while nobody waits, and else a look into a dict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raftkv.kv.history import Compacted
from raftkv.kv.machine import KvMachine


class Changes:
    def __init__(self, machine: KvMachine) -> None:
        self._machine = machine
        self._seen = machine.store.revision
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self.stopped = False

    @contextmanager
    def of(self, keys: Sequence[bytes]) -> Iterator[asyncio.Event]:
        """An event that is set once one of ``keys`` has changed, or nobody is to wait any more."""
        event = asyncio.Event()
        if self.stopped:
            event.set()
        for key in keys:
            self._waiting.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            for key in set(keys):
                events = self._waiting[key]
                events.discard(event)
                if not events:
                    del self._waiting[key]

    def turned(self) -> None:
        """A turn is over, and what was decided is applied."""
        store = self._machine.store
        if store.revision == self._seen:
            return
        seen, self._seen = self._seen, store.revision
        if not self._waiting:
            return
        try:
            changed = [] if store.history is None else store.history.since(seen)
            for _, key, _, _ in changed:
                for event in self._waiting.get(key, ()):
                    event.set()
        except Compacted:  # a snapshot came, and the past isn't in it
            self._wake_all()

    def stop(self) -> None:
        """Nobody is to wait here any more: ``stopped`` from now on."""
        self.stopped = True
        self._wake_all()

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
