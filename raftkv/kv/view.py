"""A range of the store as it is, or was at a revision: to be listed, folded into folders, and counted.

It holds no copy: nothing may change while one is in use.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import itemgetter

from raftkv.kv.row import Item, item_of
from raftkv.kv.store import Store, prefix_end

_KEY = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Listing:
    """A page. ``items`` and ``folders`` are in the order that was asked for, each for itself."""

    items: list[tuple[bytes, Item]]
    folders: list[bytes]
    rest: bytes | None  # where the next page goes on: its start, or in reverse its end; None: that was all


class View:
    """The keys from ``start`` to before ``end`` (None: to the last) at ``revision``, which isn't beyond the
    store's. Raises ``history.Compacted``.
    """

    def __init__(self, store: Store, revision: int, start: bytes, end: bytes | None) -> None:
        self._store = store
        self._start, self._end = start, end
        self._changed = store.changed_since(revision, start, end)
        self._former = sorted((key, row) for key, row in self._changed.items() if row is not None)

    def count(self) -> int:
        """How many keys there are. Looks at none that hasn't changed since, but for some at either end."""
        now = self._store.count(self._start, self._end)
        return now - sum(self._store.row(key) is not None for key in self._changed) + len(self._former)

    def page(
        self,
        limit: int,
        *,
        reverse: bool = False,
        delimiter: bytes = b"",
        prefix: bytes = b"",
        max_bytes: int | None = None,
    ) -> Listing:
        """Up to ``limit`` items and folders. It ends early where keys and values have come to ``max_bytes``,
        but never without one of either.

        A folder is what the keys with a ``delimiter`` behind ``prefix`` have in common, up to it. All keys of
        the view begin with ``prefix``. What is in a folder is stepped over, and costs nothing.
        """
        items: list[tuple[bytes, Item]] = []
        folders: list[bytes] = []
        size_bytes = 0
        rest: bytes | None = None
        rows = self._rows(self._end if reverse else self._start, reverse=reverse)
        while (pair := next(rows, None)) is not None:
            key, row = pair
            item = item_of(row)
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            folder = key[: at + len(delimiter)] if at >= 0 else None
            size_bytes += len(key) + len(item.value) if folder is None else len(folder)
            some = len(items) + len(folders)
            if some == limit or (max_bytes is not None and some and size_bytes > max_bytes):
                return Listing(items, folders, rest)
            if folder is None:
                items.append((key, item))
                rest = key if reverse else key + b"\0"
                continue
            folders.append(folder)
            rest = folder if reverse else prefix_end(folder)
            if rest is None:
                break
            rows = self._rows(rest, reverse=reverse)
        return Listing(items, folders, None)

    def _rows(self, bound: bytes | None, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """In order from ``bound`` on: the first, or in reverse the one beyond the last (None: the end)."""
        start, end = (self._start, bound) if reverse else (bound or b"", self._end)
        pairs = self._store.rows(start, end, reverse=reverse)
        if not self._changed:
            return pairs
        former = self._former
        at = len(former) if bound is None else bisect_left(former, bound, key=_KEY)
        within = (former[index] for index in range(at - 1, -1, -1)) if reverse else islice(former, at, None)
        others = (pair for pair in pairs if pair[0] not in self._changed)
        return merge(others, within, key=_KEY, reverse=reverse)
