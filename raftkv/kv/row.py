"""A key's state as one string of bytes: what the store keeps, and what a snapshot holds.

Bytes, because the garbage collector looks at no bytes: a million tuples would cost each full collection a
quarter of a second, and a hundred bytes more for every key. The layout is in snapshots: never change it
without a new ``snapshot.VERSION``.

=====  ====================  =======================================================
bytes  field
=====  ====================  =======================================================
8      create_revision       little-endian, as all numbers
8      mod_revision
8      version
4      length of the type    0 for none; else 1 more than the content type's bytes
..     content type          UTF-8
..     value                 the rest
=====  ====================  =======================================================
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

MAX_REVISION = (1 << 63) - 1  # never reached; what is read back must leave room to count on

_HEADER = Struct("<QQQI")
_HEADER_BYTES = _HEADER.size

pack_header = _HEADER.pack
unpack_header: Callable[[bytes], tuple[int, int, int, int]] = _HEADER.unpack_from


class Item(NamedTuple):
    """A key's current state. 0 < create_revision <= mod_revision; version counts puts, from 1."""

    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    content_type: str | None


def pack_typed(
    value: bytes, create_revision: int, mod_revision: int, version: int, content_type: str | None
) -> bytes:
    if content_type is None:
        return pack_header(create_revision, mod_revision, version, 0) + value
    encoded = content_type.encode()
    return pack_header(create_revision, mod_revision, version, len(encoded) + 1) + encoded + value


def mod_revision_of(row: bytes) -> int:
    return unpack_header(row)[1]


def item_of(row: bytes) -> Item:
    create_revision, mod_revision, version, size = unpack_header(row)
    if not size:
        return Item(row[_HEADER_BYTES:], create_revision, mod_revision, version, None)
    value_at = _HEADER_BYTES + size - 1
    content_type = row[_HEADER_BYTES:value_at].decode()
    return Item(row[value_at:], create_revision, mod_revision, version, content_type)


def check_row(row: bytes, revision: int) -> None:
    """Raises ValueError unless ``row`` is one that a store at ``revision`` could hold."""
    if len(row) < _HEADER_BYTES:
        raise ValueError("a row is too short")
    create_revision, mod_revision, version, size = unpack_header(row)
    if not 0 < create_revision <= mod_revision <= revision:
        raise ValueError("a row's revisions are out of order")
    if not 0 < version <= mod_revision - create_revision + 1:
        raise ValueError("a row's version doesn't go with its revisions")
    if size:
        encoded = row[_HEADER_BYTES : _HEADER_BYTES + size - 1]
        if len(encoded) != size - 1:
            raise ValueError("a row's content type goes beyond its end")
        try:
            encoded.decode()
        except UnicodeDecodeError:
            raise ValueError("a row's content type isn't UTF-8") from None
