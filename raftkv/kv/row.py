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
4      length of the type    0 for none; else 1 more than the content type's bytes; and the highest bit
8      lease                 only where that bit is set
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
_LEASE = Struct("<Q")
_LEASED = 1 << 31

pack_header = _HEADER.pack
unpack_header: Callable[[bytes], tuple[int, int, int, int]] = _HEADER.unpack_from


class Item(NamedTuple):
    """A key's current state. 0 < create_revision <= mod_revision; version counts puts, from 1."""

    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    content_type: str | None
    lease: int = 0  # that it goes with; 0: none


def pack_row(  # noqa: PLR0917 - the columns of a row, in order
    value: bytes,
    create_revision: int,
    mod_revision: int,
    version: int,
    content_type: str | None,
    lease: int = 0,
) -> bytes:
    if content_type is None and not lease:
        return pack_header(create_revision, mod_revision, version, 0) + value
    encoded = b"" if content_type is None else content_type.encode()
    size = 0 if content_type is None else len(encoded) + 1
    if lease:
        header = pack_header(create_revision, mod_revision, version, size | _LEASED)
        return header + _LEASE.pack(lease) + encoded + value
    return pack_header(create_revision, mod_revision, version, size) + encoded + value


def mod_revision_of(row: bytes) -> int:
    return unpack_header(row)[1]


def item_of(row: bytes) -> Item:
    create_revision, mod_revision, version, size = unpack_header(row)
    if not size:
        return Item(row[_HEADER_BYTES:], create_revision, mod_revision, version, None)
    lease, start, size = _lease_of(row, size)
    if not size:
        return Item(row[start:], create_revision, mod_revision, version, None, lease)
    value_at = start + size - 1
    content_type = row[start:value_at].decode()
    return Item(row[value_at:], create_revision, mod_revision, version, content_type, lease)


def lease_of(row: bytes) -> int:
    """The lease that a row goes with; 0: none."""
    return _lease_of(row, unpack_header(row)[3])[0]


def _lease_of(row: bytes, size: int) -> tuple[int, int, int]:
    """(lease, where the content type begins, length of the type without its highest bit)"""
    if size & _LEASED:
        return _LEASE.unpack_from(row, _HEADER_BYTES)[0], _HEADER_BYTES + _LEASE.size, size ^ _LEASED
    return 0, _HEADER_BYTES, size


def check_row(row: bytes, revision: int) -> None:
    """Raises ValueError unless ``row`` is one that a store at ``revision`` could hold."""
    if len(row) < _HEADER_BYTES:
        raise ValueError("a row is too short")
    create_revision, mod_revision, version, size = unpack_header(row)
    if not 0 < create_revision <= mod_revision <= revision:
        raise ValueError("a row's revisions are out of order")
    if not 0 < version <= mod_revision - create_revision + 1:
        raise ValueError("a row's version doesn't go with its revisions")
    start = _HEADER_BYTES
    if size & _LEASED:
        if len(row) < start + _LEASE.size:
            raise ValueError("a row is too short for its lease")
        lease, start, size = _lease_of(row, size)
        if not 0 < lease <= MAX_REVISION:
            raise ValueError("a row's lease is impossible")
    if size:
        encoded = row[start : start + size - 1]
        if len(encoded) != size - 1:
            raise ValueError("a row's content type goes beyond its end")
        try:
            encoded.decode()
        except UnicodeDecodeError:
            raise ValueError("a row's content type isn't UTF-8") from None
