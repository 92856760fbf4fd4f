"""Who watches which keys, and how far each has come.

Rules:

- A watcher has no queue. It has a position, the revision up to which it knows all, and pulls what came after
  from the history when it is woken. One that is slow costs no memory; it is told that it was too slow when
  what it needs next is forgotten.
- A watcher that is in step has no position of its own: it is where the hub is. So a write costs nothing for
  those who watch other keys, however many they are.
- The changes of one revision come in one pull, always.
- No look and no pull takes long: both are cut into pieces. Those who are to be woken are woken a few at a
  time, so that others have their turns between.

Pure: when to look, and what is called soon, is told from outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftkv.kv.history import Change, Compacted
from raftkv.kv.store import Store

__all__ = ["Change", "Compacted", "Hub", "Pulled", "Watcher"]

_LOOKED_AT = 2_000  # changes, one by one, in a look; about a millisecond
_SCANNED = 2_000  # changes in a pull
_PULLED_BYTES = 64 << 10  # of keys and rows in a pull, and a revision more
_WOKEN = 32  # at a time


class Pulled(NamedTuple):
    """Changes of whole revisions, in order. ``more``: there may be others already."""

    changes: list[Change]
    more: bool


class Watcher:
    """Watches the keys from ``start`` to before ``end`` (None: to the last). Made by a hub."""

    __slots__ = ("_at", "_hub", "end", "group", "is_called", "is_queued", "start", "wake")

    def __init__(
        self, hub: Hub, start: bytes, end: bytes | None, after: int | None, wake: Callable[[], None]
    ) -> None:
        self.start = start
        self.end = end
        self.wake = wake
        self.group: dict[Watcher, None] = {}  # the hub's, of those that watch the same
        self._hub = hub
        self._at = after  # None: in step
        self.is_queued = False  # it will be woken
        self.is_called = False  # it was, and has not pulled yet

    @property
    def position(self) -> int:
        """All its changes up to this revision have been pulled; it may be one that is still to come."""
        return self._hub.revision if self._at is None else self._at

    def touch(self, revision: int) -> bool:
        """Something of it may have changed at ``revision``. Whether that is news for it."""
        if self._at is None:
            self._at = revision - 1
        return revision > self._at

    def pull(self) -> Pulled:
        """What comes after its position, which goes on. It is woken once there is something after that.

        Raises ``Compacted`` where some of that is forgotten.
        """
        self._hub.look()
        self.is_called = False
        if self._at is None:
            return Pulled([], more=False)
        changes: list[Change] = []
        size_bytes = 0
        revision = self._at
        for scanned, change in enumerate(self._hub.since(revision)):
            if change[0] != revision:
                if scanned >= _SCANNED or size_bytes >= _PULLED_BYTES:
                    self._at = revision
                    return Pulled(changes, more=True)
                revision = change[0]
            key, row = change[1], change[3]
            if key >= self.start and (self.end is None or key < self.end):
                changes.append(change)
                size_bytes += len(key) + (len(row) if row is not None else 0)
        if self._at <= self._hub.revision:
            self._at = None
        return Pulled(changes, more=False)

    def skip(self) -> None:
        """Be in step, whatever has not been pulled yet."""
        self._hub.look()
        self.is_called, self._at = False, None


class Hub:
    """The watchers of one store. ``look`` is to be called whenever the store may have gone on.

    ``call_soon`` is given a function that is to be called when others have had their turns.
    """

    def __init__(self, store: Store, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._store = store
        self._call_soon = call_soon
        self.revision = store.revision  # up to which all have been looked at
        self.beats = 0
        self.is_closed = False
        self._watchers: dict[Watcher, None] = {}
        self._keys: dict[bytes, dict[Watcher, None]] = {}
        self._prefixes: dict[int, dict[bytes, dict[Watcher, None]]] = {}  # by their length
        self._ranges: dict[tuple[bytes, bytes | None], dict[Watcher, None]] = {}
        self._queued: deque[Watcher] = deque()
        self._is_waking = False

    def __len__(self) -> int:
        return len(self._watchers)

    # -- who watches ---------------------------------------------------------------------------------------

    def watch_key(self, key: bytes, after: int | None, wake: Callable[[], None]) -> Watcher:
        """``wake`` is called when there may be something to pull: changes after the revision ``after``, or
        from now on; on each beat; and when the hub is closed. Not again until it has pulled.
        """
        return self._add(self._keys.setdefault(key, {}), key, key + b"\0", after, wake)

    def watch_prefix(
        self, prefix: bytes, end: bytes | None, after: int | None, wake: Callable[[], None]
    ) -> Watcher:
        """As ``watch_key``, of all keys that begin with ``prefix``; ``end`` is its ``store.prefix_end``."""
        group = self._prefixes.setdefault(len(prefix), {}).setdefault(prefix, {})
        return self._add(group, prefix, end, after, wake)

    def watch_range(
        self, start: bytes, end: bytes | None, after: int | None, wake: Callable[[], None]
    ) -> Watcher:
        """As ``watch_key``, of a range. Each different one costs a comparison for each change."""
        return self._add(self._ranges.setdefault((start, end), {}), start, end, after, wake)

    def _add(
        self,
        group: dict[Watcher, None],
        start: bytes,
        end: bytes | None,
        after: int | None,
        wake: Callable[[], None],
    ) -> Watcher:
        self.look()
        watcher = Watcher(self, start, end, None if after == self.revision else after, wake)
        watcher.group = group
        group[watcher] = self._watchers[watcher] = None
        if self.is_closed or watcher.position < self.revision:
            self._call(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """It isn't woken any more. Does nothing if it was removed before."""
        if self._watchers.pop(watcher, watcher) is watcher:
            return
        del watcher.group[watcher]
        if not watcher.group:
            self._forget(watcher)

    def _forget(self, watcher: Watcher) -> None:
        """The group that it was the last of."""
        start, group = watcher.start, watcher.group
        if self._keys.get(start) is group:
            del self._keys[start]
        elif self._prefixes.get(len(start), {}).get(start) is group:
            del self._prefixes[len(start)][start]
            if not self._prefixes[len(start)]:
                del self._prefixes[len(start)]
        else:
            del self._ranges[start, watcher.end]

    # -- what happens --------------------------------------------------------------------------------------

    def since(self, revision: int) -> Iterator[Change]:
        """The changes after ``revision``, which may be one to come, as ``History.since``."""
        history = self._store.history
        return iter(()) if history is None or revision >= self._store.revision else history.since(revision)

    def look(self) -> None:
        """Have those woken whose keys changed since the last look."""
        # NB: runs in every turn of a node.
        revision = self._store.revision
        if revision == self.revision:
            return
        after, self.revision = self.revision, revision
        if not self._watchers:
            return
        try:
            changes = self.since(after)
        except Compacted:  # who is touched can't be known any more
            self._touch_all(after + 1)
            return
        for looked_at, (changed_at, key, _, _) in enumerate(changes):
            if looked_at == _LOOKED_AT:  # as after a snapshot was installed
                self._touch_all(changed_at)
                return
            self._look_at(changed_at, key)

    def _look_at(self, revision: int, key: bytes) -> None:
        if (group := self._keys.get(key)) is not None:
            self._touch(group, revision)
        for length, groups in self._prefixes.items():
            if (group := groups.get(key[:length])) is not None:
                self._touch(group, revision)
        for (start, end), group in self._ranges.items():
            if key >= start and (end is None or key < end):
                self._touch(group, revision)

    def _touch_all(self, first: int) -> None:
        """Something may have changed at ``first``, or after, up to now."""
        for watcher in self._watchers:
            watcher.touch(first)
            if watcher.touch(self.revision):
                self._call(watcher)

    def _touch(self, group: dict[Watcher, None], revision: int) -> None:
        for watcher in group:
            if watcher.touch(revision):
                self._call(watcher)

    def beat(self) -> None:
        """Wake all, so that each may say how far it is."""
        self.beats += 1
        for watcher in self._watchers:
            self._call(watcher)

    def close(self) -> None:
        """Wake all, and whoever comes later: they are to watch elsewhere."""
        self.is_closed = True
        self.beat()

    # -- waking --------------------------------------------------------------------------------------------

    def _call(self, watcher: Watcher) -> None:
        if watcher.is_queued or watcher.is_called:
            return
        watcher.is_queued = True
        self._queued.append(watcher)
        if not self._is_waking:
            self._is_waking = True
            self._call_soon(self._wake_some)

    def _wake_some(self) -> None:
        for _ in range(min(_WOKEN, len(self._queued))):
            watcher = self._queued.popleft()
            watcher.is_queued = False
            if watcher in self._watchers:
                watcher.is_called = True
                watcher.wake()
        self._is_waking = bool(self._queued)
        if self._is_waking:
            self._call_soon(self._wake_some)
