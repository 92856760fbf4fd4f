"""The rows in the order of their keys, the revisions, and what was before. Knows keys and values; not
commands, sessions or logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import filterfalse
from types import MappingProxyType

from raftkv.kv.history import Change, History
from raftkv.kv.image import Image
from raftkv.kv.ordered import Bucket, OrderedRows
from raftkv.kv.row import Item, item_of, lease_of, mod_revision_of, pack_header, pack_row, unpack_header

__all__ = ["Item", "Page", "Store", "prefix_end"]

MAX_IMAGES = 4  # at a time: a node's own snapshot, and backups

Row = bytes | None
Put = tuple[bytes, bytes, str | None]
"""(key, value, content type)"""
Overlay = Mapping[bytes, Row]
"""Rows that stand for those of the store; None: there is none."""


_NOTHING: Overlay = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys in order. ``more`` says whether the range holds others beyond ``items``."""

    items: list[tuple[bytes, Item]]
    more: bool


class Store:
    """NB: whatever changes a row must take a new revision, and show the old row to the images first."""

    def __init__(self) -> None:
        self.revision = 0
        self.history: History | None = None  # None: nothing is kept of the past
        self.size_bytes = 0  # of keys and rows
        self._rows = OrderedRows()
        self._images: list[Image] = []
        self._leased: dict[int, set[bytes]] = {}  # keys by their lease; sorted before anything depends on it
        self.keyless: list[int] = []  # leases that have just lost their last key

    def __len__(self) -> int:
        return len(self._rows)

    # -- what is there -------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Item | None:
        row = self._rows.bucket(key).get(key)
        return None if row is None else item_of(row)

    def row(self, key: bytes) -> Row:
        return self._rows.bucket(key).get(key)

    def mod_revision(self, key: bytes) -> int:
        """The key's mod_revision; 0 where it is absent."""
        row = self._rows.bucket(key).get(key)
        return 0 if row is None else mod_revision_of(row)

    def get_at(self, key: bytes, revision: int) -> Item | None:
        """As it was at ``revision``, which isn't beyond the store's. Raises ``history.Compacted``."""
        row = self._past.row_at(key, self.row(key), revision)
        return None if row is None else item_of(row)

    def page_at(
        self,
        revision: int,
        start: bytes,
        end: bytes | None,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
    ) -> Page:
        """As ``page``, of the store as it was at ``revision``. Raises ``history.Compacted``."""
        overlay = self.changed_since(revision, start, end)
        return self.page(start, end, limit, reverse=reverse, max_bytes=max_bytes, overlay=overlay)

    def changed_since(self, revision: int, start: bytes, end: bytes | None) -> Overlay:
        """The keys of a range that have changed after ``revision``, each with the row that it had then.
        Raises ``history.Compacted``.
        """
        return self._past.rows_at(revision, start, end) if revision < self.revision else _NOTHING

    def count(self, start: bytes, end: bytes | None) -> int:
        """How many keys there are from ``start`` to before ``end`` (None: to the last)."""
        return self._rows.count(start, end)

    @property
    def _past(self) -> History:
        return History(self.revision) if self.history is None else self.history

    def page(
        self,
        start: bytes,
        end: bytes | None,
        limit: int,
        *,
        reverse: bool = False,
        max_bytes: int | None = None,
        overlay: Overlay = _NOTHING,
    ) -> Page:
        """Up to ``limit`` items with ``start <= key < end`` (no end: to the last), or in reverse.

        It ends early where keys and values have come to ``max_bytes``, but never without an item.
        """
        items: list[tuple[bytes, Item]] = []
        size_bytes = 0
        for key, row in self.rows(start, end, reverse=reverse, overlay=overlay):
            item = item_of(row)
            size_bytes += len(key) + len(item.value)
            if len(items) == limit or (max_bytes is not None and items and size_bytes > max_bytes):
                return Page(items, more=True)
            items.append((key, item))
        return Page(items, more=False)

    def rows(
        self, start: bytes, end: bytes | None, *, reverse: bool = False, overlay: Overlay = _NOTHING
    ) -> Iterator[tuple[bytes, bytes]]:
        """The rows of a range in order, with ``overlay`` in their place. Nothing may change meanwhile."""
        pairs = self._rows.descending(end) if reverse else self._rows.ascending(start)
        if overlay:
            pairs = _overlaid(pairs, overlay, start, end, reverse=reverse)
        for key, row in pairs:
            if key < start if reverse else end is not None and key >= end:
                return
            yield key, row

    def leased(self, lease: int) -> list[bytes]:
        """The keys that go with ``lease``, in order."""
        return sorted(self._leased.get(lease, ()))

    # -- what changes it -----------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, content_type: str | None) -> int:
        """Set ``key``; takes one new revision. The key's version: how often it was put, 1 for a new one."""
        return self.put_all([(key, value, content_type)])[0]

    def put_all(self, puts: Iterable[Put]) -> list[int]:
        """``put`` each, in order; their versions."""
        # NB: nearly all that a busy node does for a write of its own or another's is done in this loop.
        bucket_of = self._rows.bucket
        changes: list[Change] = []
        versions: list[int] = []
        for key, value, content_type in puts:
            self.revision = revision = self.revision + 1
            bucket = bucket_of(key)
            old = bucket.get(key)
            if old is None:
                create_revision, version = revision, 1
            else:
                create_revision, _, version, _ = unpack_header(old)
                version += 1
            if content_type is None:
                new = pack_header(create_revision, revision, version, 0) + value
            else:
                new = pack_row(value, create_revision, revision, version, content_type)
            self._replace(bucket, key, old, new)
            changes.append((revision, key, old, new))
            versions.append(version)
        self._note(changes)
        return versions

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; takes a new revision only if it was there."""
        bucket = self._rows.bucket(key)
        old = bucket.get(key)
        if old is None:
            return False
        self.revision += 1
        self._replace(bucket, key, old, None)
        self._note([(self.revision, key, old, None)])
        return True

    def take(self, changes: Overlay) -> None:
        """Make all of ``changes`` at one new revision, which their rows have already."""
        self.revision += 1
        made: list[Change] = []
        for key, new in changes.items():
            bucket = self._rows.bucket(key)
            old = bucket.get(key)
            if old is not None or new is not None:
                if new is not None and (lease := lease_of(new)):
                    self._leased.setdefault(lease, set())
                self._replace(bucket, key, old, new)
                made.append((self.revision, key, old, new))
        self._note(made)

    def _replace(self, bucket: Bucket, key: bytes, old: Row, new: Row) -> None:
        """At the revision that the store has now; ``bucket`` is the key's."""
        if old is None:
            assert new is not None
            self._rows.add(key, new)
            self.size_bytes += len(key) + len(new)
        else:
            for image in self._images:
                image.keep(key, old)
            if new is None:
                self._rows.remove(key)
                self.size_bytes -= len(key) + len(old)
            else:
                bucket[key] = new
                self.size_bytes += len(new) - len(old)
        if self._leased:
            self._note_lease(key, old, 0 if new is None else lease_of(new))

    def _note(self, changes: list[Change]) -> None:
        if self.history is not None:
            self.history.extend(changes)

    def _note_lease(self, key: bytes, old: Row, lease: int) -> None:
        before = 0 if old is None else lease_of(old)
        if before and before != lease:
            keys = self._leased[before]
            keys.remove(key)
            if not keys:
                del self._leased[before]
                self.keyless.append(before)
        if lease and before != lease:
            self._leased.setdefault(lease, set()).add(key)

    # -- snapshots -----------------------------------------------------------------------------------------

    def image(self) -> Image:
        """The store as it is now, to be read while it goes on. It lasts until it is released; raises
        RuntimeError while there are ``MAX_IMAGES``.
        """
        if len(self._images) == MAX_IMAGES:
            raise RuntimeError(f"{MAX_IMAGES} images of the store are being read; release one first")
        image = Image(self._rows, self.revision)
        self._images.append(image)
        return image

    def release(self, image: Image) -> None:
        """``image`` won't be read on. Does nothing if it was released before."""
        if image in self._images:
            self._images.remove(image)

    def become(self, other: Store) -> OrderedRows:
        """Hold what ``other`` holds, which nobody uses any more, instead of what is returned. Images that are
        being read go on, of the former rows.
        """
        former = self._rows
        self.revision, self.history, self.size_bytes = other.revision, other.history, other.size_bytes
        self._rows, self._leased = other._rows, other._leased
        self._images = []
        return former

    def append(self, key: bytes, row: bytes) -> None:
        """A row beyond all others, as it is read back from a snapshot: no new revision is taken."""
        self._rows.append(key, row)
        self.size_bytes += len(key) + len(row)
        if lease := lease_of(row):
            self._leased.setdefault(lease, set()).add(key)


def _overlaid(
    pairs: Iterator[tuple[bytes, bytes]], overlay: Overlay, start: bytes, end: bytes | None, *, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """``pairs`` with those of ``overlay`` that are in the range in their place."""
    within = [
        (key, row)
        for key, row in overlay.items()
        if row is not None and key >= start and (end is None or key < end)
    ]
    within.sort(reverse=reverse)
    others = filterfalse(lambda pair: pair[0] in overlay, pairs)
    return merge(others, within, key=lambda pair: pair[0], reverse=reverse)


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all keys that begin with ``prefix``; None if there is none (empty or all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
