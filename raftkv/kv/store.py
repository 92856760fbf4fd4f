"""The dict, its ordered keys, and its revisions. Knows keys and values; not commands, sessions or logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sortedcontainers import SortedList


class Item(NamedTuple):
    """A key's current state. 0 < create_revision <= mod_revision; version counts puts, from 1."""

    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys in order. ``more`` says whether the range holds others beyond ``items``."""

    items: list[tuple[bytes, Item]]
    more: bool


class Store:
    def __init__(self) -> None:
        self.revision = 0
        self._items: dict[bytes, Item] = {}
        self._ordered = SortedList()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: bytes) -> Item | None:
        return self._items.get(key)

    def mod_revision(self, key: bytes) -> int:
        """The key's mod_revision; 0 where it is absent."""
        item = self._items.get(key)
        return 0 if item is None else item.mod_revision

    def put(self, key: bytes, value: bytes, content_type: str | None) -> Item:
        """Set ``key``; takes one new revision."""
        self.revision = revision = self.revision + 1
        old = self._items.get(key)
        if old is None:
            item = Item(value, revision, revision, 1, content_type)
            self._ordered.add(key)
        else:
            item = Item(value, old.create_revision, revision, old.version + 1, content_type)
        self._items[key] = item
        return item

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; takes a new revision only if it was there."""
        if self._items.pop(key, None) is None:
            return False
        self.revision += 1
        self._ordered.remove(key)
        return True

    def page(
        self,
        start: bytes,
        end: bytes | None,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        """Up to ``limit`` items with ``start <= key < end`` (no end: to the last), or in reverse.

        It ends early where keys and values have come to ``max_bytes``, but never without an item.
        """
        keys: Iterator[bytes] = self._ordered.irange(start, end, inclusive=(True, False), reverse=reverse)
        items: list[tuple[bytes, Item]] = []
        size_bytes = 0
        for key in keys:
            item = self._items[key]
            size_bytes += len(key) + len(item.value)
            if len(items) == limit or (max_bytes is not None and items and size_bytes > max_bytes):
                return Page(items, more=True)
            items.append((key, item))
        return Page(items, more=False)


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all keys that begin with ``prefix``; None if there is none (empty or all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
