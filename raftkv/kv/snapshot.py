"""A machine as a row of chunks, and a machine from chunks. Format, version 1 (docs/snapshots.md).

Every chunk is a msgpack array without arrays in it:

1. ``[version, revision, keys, nodes]``, the last two are how many follow;
2. for each node that has a session, in the order of their names: ``[node, incarnation, low, applied]``,
   ``applied`` as 8 little-endian bytes for each number, in order;
3. for the keys, in order: ``[key, row, key, row ...]``, at most ``image.MAX_PIECE_ROWS`` rows, laid out as in
   ``row``.

Chunks must be fed as they were cut. What became of their bytes on the way is for the checksums of whoever
kept them; here everything is checked that could leave a machine which no log leads to, or memory taken that
the chunk itself doesn't fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import msgpack

from raftkv.kv.image import MAX_PIECE_ROWS
from raftkv.kv.ordered import OrderedRows
from raftkv.kv.row import MAX_REVISION, check_row
from raftkv.kv.session import Sessions
from raftkv.kv.store import Store

VERSION = 1

_MAX_HEAD_VALUES = 64  # so that a later version's can be told from no head at all

Machine = TypeVar("Machine")


class UnknownVersion(ValueError):
    """The chunks are another version's, probably a later one's: no damage."""


class Export(Iterator[bytes]):
    """The chunks of a machine as it was when this was made, whatever is applied meanwhile.

    Each ``next`` does a bounded piece of work, about a millisecond, whatever the number of keys. It gives an
    empty chunk if that didn't complete one; skip those. ``close`` ends it early; one that is dropped without
    an end or ``close`` goes on costing memory with every write.
    """

    def __init__(self, store: Store, sessions: Sessions) -> None:
        """Raises RuntimeError if ``store.MAX_IMAGES`` others of this machine are neither at their end nor
        closed.
        """
        self._store = store
        self._image = store.image()
        self._pack: Callable[[list[Any]], bytes] = msgpack.Packer().pack
        rows = sessions.rows()
        self._first = iter([[VERSION, self._image.revision, self._image.keys, len(rows)], *rows])
        self._is_closed = False

    def __next__(self) -> bytes:
        values = next(self._first, None)
        if values is not None:
            return self._pack(values)
        if self._image.is_read:
            self.close()
        if self._is_closed:
            raise StopIteration
        piece = self._image.step()
        return self._pack(piece) if piece else b""

    @property
    def revision(self) -> int:
        """The store's, when this was made."""
        return self._image.revision

    @property
    def keys(self) -> int:
        """How many there were then."""
        return self._image.keys

    @property
    def kept_bytes(self) -> int:
        """Of rows that were changed or removed since, and are still to come."""
        return self._image.kept_bytes

    def close(self) -> None:
        """Free what was kept; there are no more chunks. Does nothing the second time."""
        self._first = iter([])
        self._is_closed = True
        self._store.release(self._image)


class Restore(Generic[Machine]):
    """Builds a machine's state from its chunks; ``install`` makes a machine of it.

    ``feed`` and ``finish`` raise ValueError, which says what is wrong, where the chunks aren't those of an
    export; all that was fed is lost then.
    """

    def __init__(
        self, install: Callable[[int, OrderedRows, Sessions], Machine], rows: OrderedRows | None = None
    ) -> None:
        """``rows``: where they go, by ``append``; default: a new one."""
        self._install = install
        self._revision = self._keys = self._nodes = 0
        self._rows = OrderedRows() if rows is None else rows
        self._last_key: bytes | None = None
        self._sessions = Sessions()
        self._take: Callable[[bytes], None] = self._take_head

    def feed(self, chunk: bytes) -> None:
        """The next chunk; an empty one changes nothing. The work depends on this chunk's size alone."""
        if not chunk:
            return
        take, self._take = self._take, _take_nothing  # for good, unless this one is sound
        take(chunk)
        self._take = self._take_session if len(self._sessions) < self._nodes else self._take_rows

    def finish(self) -> Machine:
        """What ``install`` makes of it all; it has little to do. Nothing can be fed afterwards."""
        if self._take == self._take_head:
            raise ValueError("no chunk was fed")
        if self._take == self._take_session:
            raise ValueError(f"only {len(self._sessions)} of {self._nodes} sessions were fed")
        if self._take == self._take_rows and len(self._rows) < self._keys:
            raise ValueError(f"only {len(self._rows)} of {self._keys} keys were fed")
        take, self._take = self._take, _take_nothing
        if take == _take_nothing:
            take(b"")
        return self._install(self._revision, self._rows, self._sessions)

    def _take_head(self, chunk: bytes) -> None:
        values = _unpack(chunk, _MAX_HEAD_VALUES)
        if not values or not all(type(value) is int for value in values):
            raise ValueError("the first chunk isn't one of numbers")
        if values[0] != VERSION:
            raise UnknownVersion(f"a machine of version {values[0]}; this program reads version {VERSION}")
        if len(values) != 4:
            raise ValueError(f"the first chunk has {len(values)} numbers, not 4")
        _, self._revision, self._keys, self._nodes = values
        if not 0 <= self._keys <= self._revision <= MAX_REVISION or self._nodes < 0:
            raise ValueError("the first chunk's numbers are impossible")

    def _take_session(self, chunk: bytes) -> None:
        self._sessions.add_row(_unpack(chunk, 4))

    def _take_rows(self, chunk: bytes) -> None:
        values = _unpack(chunk, 2 * MAX_PIECE_ROWS)
        if not values or len(values) % 2:
            raise ValueError("a chunk of rows that has none, or a key without one")
        if len(self._rows) + len(values) // 2 > self._keys:
            raise ValueError(f"more than {self._keys} keys")
        append, revision, last_key = self._rows.append, self._revision, self._last_key
        pairs = iter(values)
        for key, row in zip(pairs, pairs, strict=True):
            if type(key) is not bytes or type(row) is not bytes:
                raise ValueError("a key or row that isn't bytes")
            if last_key is not None and key <= last_key:
                raise ValueError("keys out of order")
            check_row(row, revision)
            append(key, row)
            last_key = key
        self._last_key = last_key


class Survey:
    """Checks chunks as ``Restore`` does, to the last row, and keeps only numbers: for who wants to know what
    a snapshot holds, and whether it can be restored.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._rows = _Counted()
        self._restore = Restore(self._note, self._rows)

    @property
    def keys(self) -> int:
        """How many have been fed."""
        return len(self._rows)

    def feed(self, chunk: bytes) -> None:
        """As ``Restore.feed``."""
        self._restore.feed(chunk)

    def finish(self) -> None:
        """As ``Restore.finish``; then ``revision`` is the machine's."""
        self._restore.finish()

    def _note(self, revision: int, rows: OrderedRows, sessions: Sessions) -> None:
        self.revision = revision


class _Counted(OrderedRows):
    """Rows that are counted and let go."""

    def append(self, key: bytes, row: bytes) -> None:
        self._len += 1


def founding_chunks(chunks: Iterable[bytes], bump_revision: int) -> Iterator[bytes]:
    """A machine's chunks as those of a new cluster's: no sessions, for there are no batches of its nodes yet,
    and the old nodes' may have their names; and a revision that is ``bump_revision`` higher, beyond what
    anyone has seen of the old cluster. The keys are as they were.

    Raises ValueError where the revision would be too large, or for a head that is none; the rest isn't
    checked (``Survey`` does).
    """
    rest = filter(None, chunks)
    head = _unpack(next(rest, b""), _MAX_HEAD_VALUES)
    if len(head) != 4 or head[0] != VERSION:
        raise ValueError("the first chunk is no machine's")
    _, revision, keys, nodes = head
    if not revision <= revision + bump_revision <= MAX_REVISION:
        raise ValueError(f"revision {revision} can't be raised by {bump_revision}")
    yield bytes(msgpack.packb([VERSION, revision + bump_revision, keys, 0]))
    yield from islice(rest, nodes, None)


def _take_nothing(chunk: bytes) -> None:
    raise ValueError("an earlier chunk was refused, or all was finished")


def _unpack(chunk: bytes, max_values: int) -> list[Any]:
    """A chunk's values, not yet checked. ``max_values`` is what any array in it may claim to have, since
    msgpack makes room for that many before it has seen one.
    """
    try:
        values = msgpack.unpackb(chunk, max_array_len=max_values, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"a chunk can't be read: {error}") from None
    if not isinstance(values, list):
        raise ValueError("a chunk that isn't an array")
    return values
