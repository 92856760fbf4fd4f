"""The rows in the order of their keys, and the revisions. Knows keys and values; not commands, sessions or
logs.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.kv.image import Image
from raftkv.kv.ordered import OrderedRows
from raftkv.kv.row import Item, item_of, mod_revision_of, pack_header, pack_typed, unpack_header

__all__ = ["Item", "Page", "Store", "prefix_end"]

MAX_IMAGES = 4  # at a time: a node's own snapshot, and backups


@dataclass(frozen=True, slots=True)
class Page:
    """Some keys in order. ``more`` says whether the range holds others beyond ``items``."""

    items: list[tuple[bytes, Item]]
    more: bool


class Store:
    """NB: whatever changes a row must take a new revision, and show the old row to the images first."""

    def __init__(self) -> None:
        self.revision = 0
        self._rows = OrderedRows()
        self._images: list[Image] = []

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: bytes) -> Item | None:
        row = self._rows.bucket(key).get(key)
        return None if row is None else item_of(row)

    def mod_revision(self, key: bytes) -> int:
        """The key's mod_revision; 0 where it is absent."""
        row = self._rows.bucket(key).get(key)
        return 0 if row is None else mod_revision_of(row)

    def put(self, key: bytes, value: bytes, content_type: str | None) -> int:
        """Set ``key``; takes one new revision. The key's version: how often it was put, 1 for a new one."""
        self.revision = revision = self.revision + 1
        bucket = self._rows.bucket(key)
        old = bucket.get(key)
        if old is None:
            self._rows.add(key, pack_typed(value, revision, revision, 1, content_type))
            return 1
        for image in self._images:
            image.keep(key, old)
        create_revision, _, version, _ = unpack_header(old)
        version += 1
        if content_type is None:
            bucket[key] = pack_header(create_revision, revision, version, 0) + value
        else:
            bucket[key] = pack_typed(value, create_revision, revision, version, content_type)
        return version

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; takes a new revision only if it was there."""
        old = self._rows.bucket(key).get(key)
        if old is None:
            return False
        for image in self._images:
            image.keep(key, old)
        self.revision += 1
        self._rows.remove(key)
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
        pairs = self._rows.descending(end) if reverse else self._rows.ascending(start)
        items: list[tuple[bytes, Item]] = []
        size_bytes = 0
        for key, row in pairs:
            if key < start if reverse else end is not None and key >= end:
                break
            item = item_of(row)
            size_bytes += len(key) + len(item.value)
            if len(items) == limit or (max_bytes is not None and items and size_bytes > max_bytes):
                return Page(items, more=True)
            items.append((key, item))
        return Page(items, more=False)

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

    def become(self, revision: int, rows: OrderedRows) -> OrderedRows:
        """Hold ``rows`` at ``revision`` instead of what is returned. Images that are being read go on, of
        the former rows.
        """
        former = self._rows
        self.revision = revision
        self._rows = rows
        self._images = []
        return former


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key after all keys that begin with ``prefix``; None if there is none (empty or all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
