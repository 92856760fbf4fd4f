"""A machine as a row of chunks, and a machine from chunks. Formats (docs/snapshots.md):

Every chunk is a msgpack array without arrays in it. A machine of level 1 is written in version 1:

1. ``[version, revision, keys, nodes]``, the last two are how many follow;
2. for each node that has a session, in the order of their names: ``[node, incarnation, low, applied]``,
   ``applied`` as 8 little-endian bytes for each number, in order;
3. for the keys, in order: ``[key, row, key, row ...]``, at most ``image.MAX_PIECE_ROWS`` rows, laid out as in
   ``row``.

One of a later level in version 2: the first chunk goes on with ``[..., level, time_ms, compacted, checksum,
next_lease, leases, tokens, changes]``, and between 2 and 3 there are

- leases, in the order of their ids: ``[id, ttl_ms, expires_ms, own ...]``,
- idempotency tokens, oldest first: ``[token, time_ms, fingerprint, result ...]``,
- the history, oldest first: ``[begun_ms, revision, key, new, old ...]``; ``begun_ms`` is when a block of it
  began, or nil where one goes on, and ``old`` is False where the change before it of the same key says it.

Chunks must be fed as they were cut. What became of their bytes on the way is for the checksums of whoever
kept them; here everything is checked that could leave a machine which no log leads to, or memory taken that
the chunk itself doesn't fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import msgpack

from raftkv.kv.history import History
from raftkv.kv.image import MAX_PIECE_ROWS
from raftkv.kv.lease import Lease
from raftkv.kv.levels import MACHINE_LEVEL, OLDEST_LEVEL
from raftkv.kv.row import MAX_REVISION, check_row, lease_of
from raftkv.kv.state import State
from raftkv.kv.token import Outcome

VERSION = 2
OLDEST_VERSION = 1

_MAX_HEAD_VALUES = 64  # so that a later version's can be told from no head at all
_HEAD_VALUES = {1: 4, 2: 12}
_KINDS = ("sessions", "leases", "tokens", "changes", "keys")  # in this order
_PIECE_VALUES = 1_024
_PIECE_BYTES = 64 << 10

Machine = TypeVar("Machine")


class UnknownVersion(ValueError):
    """The chunks are another version's, probably a later one's: no damage."""


# -- out ---------------------------------------------------------------------------------------------------


class Export(Iterator[bytes]):
    """The chunks of a machine as it was when this was made, whatever is applied meanwhile.

    Each ``next`` does a bounded piece of work, about a millisecond, whatever the number of keys. It gives an
    empty chunk if that didn't complete one; skip those. ``close`` ends it early; one that is dropped without
    an end or ``close`` goes on costing memory with every write.
    """

    def __init__(self, machine: State) -> None:
        """Raises RuntimeError if ``store.MAX_IMAGES`` others of this machine are neither at their end nor
        closed.
        """
        self._store = machine.store
        self._image = machine.store.image()
        self._pack: Callable[[list[Any]], bytes] = msgpack.Packer().pack
        sessions = machine.sessions.rows()
        head: list[Any] = [OLDEST_VERSION, self._image.revision, self._image.keys, len(sessions)]
        rest: Iterator[list[Any]] = iter(())
        if machine.store.history is not None:
            head[0] = VERSION
            more, rest = _beyond_rows(machine, machine.store.history)
            head += more
        self._first = chain([head], sessions, rest)
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
        self._first = chain()
        self._is_closed = True
        self._store.release(self._image)


def _beyond_rows(machine: State, history: History) -> tuple[list[int], Iterator[list[Any]]]:
    """What version 2 has more: the rest of the head, and the chunks."""
    leases, tokens, blocks = machine.leases.rows(), machine.tokens.rows(), history.blocks()
    head = [
        machine.level,
        machine.time_ms,
        history.compacted,
        history.checksum,
        machine.leases.next_id,
        len(leases),
        len(tokens),
        len(history),
    ]
    lease_rows = ((lease, *leases[lease]) for lease in sorted(leases))
    token_rows = ((token, *outcome) for token, outcome in tokens.items())
    return head, chain(_pieces(lease_rows), _pieces(token_rows), _history_pieces(blocks))


def _pieces(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[Any]]:
    piece: list[Any] = []
    size = 0
    for row in rows:
        piece += row
        size += sum([len(part) for part in row if type(part) is bytes])
        if len(piece) >= _PIECE_VALUES or size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _history_pieces(blocks: list[tuple[int, list[Any]]]) -> Iterator[list[Any]]:
    seen: set[bytes] = set()
    for begun_ms, changes in blocks:
        begins: int | None = begun_ms
        rows = []
        for revision, key, old, new in changes:
            rows.append((revision, key, new, False if key in seen else old))
            seen.add(key)
        for piece in _pieces(rows):
            yield [begins, *piece]
            begins = None


# -- in ----------------------------------------------------------------------------------------------------


class Restore(Generic[Machine]):
    """Builds a machine's state from its chunks; ``install`` makes a machine of it.

    ``feed`` and ``finish`` raise ValueError, which says what is wrong, where the chunks aren't those of an
    export; all that was fed is lost then.
    """

    def __init__(self, install: Callable[[State], Machine]) -> None:
        self._machine = State()
        self._install = install
        self._head: list[int] = []
        self._last_key: bytes | None = None
        self._keys = 0
        self._last: dict[bytes, bytes | None] = {}  # the history's, so far
        self._wanted = [0] * len(_KINDS)  # how many the first chunk says there are
        self._left = [0] * len(_KINDS)  # how many of them are to come
        self._take: Callable[[bytes], None] = self._take_head

    def feed(self, chunk: bytes) -> None:
        """The next chunk; an empty one changes nothing. The work depends on this chunk's size alone."""
        if not chunk:
            return
        take, self._take = self._take, _take_nothing  # for good, unless this one is sound
        take(chunk)
        self._take = next(
            (how for left, how in zip(self._left, self._takers, strict=True) if left), self._take_rows
        )

    def finish(self) -> Machine:
        """What ``install`` makes of it all; it has little to do. Nothing can be fed afterwards."""
        take, self._take = self._take, _take_nothing
        if take == self._take_head:
            raise ValueError("no chunk was fed")
        if take == _take_nothing:
            take(b"")
        for left, wanted, what in zip(self._left, self._wanted, _KINDS, strict=True):
            if left:
                raise ValueError(f"only {wanted - left} of {wanted} {what} were fed")
        self._last.clear()
        return self._install(self._machine)

    @property
    def _takers(self) -> list[Callable[[bytes], None]]:
        return [self._take_session, self._take_leases, self._take_tokens, self._take_changes, self._take_rows]

    def _take_head(self, chunk: bytes) -> None:
        values = _unpack(chunk, _MAX_HEAD_VALUES)
        if not values or not all(type(value) is int for value in values):
            raise ValueError("the first chunk isn't one of numbers")
        version, machine = values[0], self._machine
        if version not in _HEAD_VALUES:
            raise UnknownVersion(f"a machine of version {version}; this program reads version {VERSION}")
        if len(values) != _HEAD_VALUES[version]:
            raise ValueError(f"the first chunk has {len(values)} numbers, not {_HEAD_VALUES[version]}")
        if not all(0 <= value <= MAX_REVISION for value in values):
            raise ValueError("the first chunk's numbers are impossible")
        _, revision, keys, nodes, *more = values
        machine.store.revision = revision
        leases = tokens = changes = 0
        if more:
            level, time_ms, compacted, checksum, next_lease, leases, tokens, changes = more
            if level > MACHINE_LEVEL:
                raise UnknownVersion(f"a machine of level {level}; this program has level {MACHINE_LEVEL}")
            if level == OLDEST_LEVEL or compacted > revision:
                raise ValueError("the first chunk's numbers are impossible")
            machine.level, machine.time_ms = level, time_ms
            machine.leases.next_id = next_lease
            machine.store.history = History(compacted, checksum)
        elif keys > revision:
            raise ValueError("the first chunk's numbers are impossible")
        self._wanted = [nodes, leases, tokens, changes, keys]
        self._left = self._wanted.copy()

    def _take_session(self, chunk: bytes) -> None:
        self._machine.sessions.add_row(_unpack(chunk, 4))
        self._left[0] -= 1

    def _take_leases(self, chunk: bytes) -> None:
        leases = self._machine.leases
        for lease, ttl_ms, expires_ms, own in self._rows_of(chunk, 4, 1):
            if not all(type(each) is int for each in (lease, ttl_ms, expires_ms)) or type(own) is not bool:
                raise ValueError("not a lease")
            if not 0 < lease < leases.next_id or ttl_ms <= 0 or leases.get(lease) is not None:
                raise ValueError("a lease's numbers are impossible")
            leases.add(lease, Lease(ttl_ms, expires_ms, own))

    def _take_tokens(self, chunk: bytes) -> None:
        tokens = self._machine.tokens
        for token, time_ms, fingerprint, result in self._rows_of(chunk, 4, 2):
            sound = type(token) is str and type(time_ms) is int
            if not sound or type(fingerprint) is not bytes or type(result) is not bytes:
                raise ValueError("not an idempotency token")
            if tokens.get(token) is not None:
                raise ValueError("an idempotency token comes twice")
            tokens.add(token, Outcome(time_ms, fingerprint, result))

    def _take_changes(self, chunk: bytes) -> None:
        history, last = self._machine.store.history, self._last
        assert history is not None
        checksum, before = history.checksum, max(history.last_revision, history.compacted + 1)
        values = _unpack(chunk, _PIECE_VALUES * 2)
        begun_ms, rows = values[0] if values else None, values[1:]
        if type(begun_ms) is int and rows and type(rows[0]) is int:
            history.add_block(begun_ms, rows[0])
        elif begun_ms is not None or not last:
            raise ValueError("a piece of the history without a beginning")
        for revision, key, new, old in self._rows_in(rows, 4, 3):
            if type(revision) is not int or not before <= revision <= self._machine.store.revision:
                raise ValueError("the history's revisions are out of order")
            if type(key) is not bytes or (old is False) != (key in last):
                raise ValueError("not a change of the history")
            former = last[key] if old is False else old
            for row in (former, new):
                if row is not None:
                    check_row(row, revision)
            if new is None and former is None:
                raise ValueError("a change of the history that changes nothing")
            history.extend([(revision, key, former, new)])
            last[key], before = new, revision
        history.checksum = checksum
        history.time_ms = self._machine.time_ms

    def _take_rows(self, chunk: bytes) -> None:
        values = _unpack(chunk, 2 * MAX_PIECE_ROWS)
        store, leases, last_key = self._machine.store, self._machine.leases, self._last_key
        append, revision = self._append, store.revision
        for key, row in self._rows_in(values, 2, 4):
            if type(key) is not bytes or type(row) is not bytes:
                raise ValueError("a key or row that isn't bytes")
            if last_key is not None and key <= last_key:
                raise ValueError("keys out of order")
            check_row(row, revision)
            lease = lease_of(row)
            if lease and leases.get(lease) is None:
                raise ValueError("a key goes with a lease that isn't there")
            append(key, row)
            last_key = key
        self._last_key = last_key

    def _append(self, key: bytes, row: bytes) -> None:
        self._keys += 1
        self._machine.store.append(key, row)

    def _rows_of(self, chunk: bytes, width: int, kind: int) -> Iterator[tuple[Any, ...]]:
        return self._rows_in(_unpack(chunk, _PIECE_VALUES + width), width, kind)

    def _rows_in(self, values: list[Any], width: int, kind: int) -> Iterator[tuple[Any, ...]]:
        """``values`` by ``width``; counts them."""
        if not values or len(values) % width:
            raise ValueError("a chunk of rows that has none, or a key without one")
        self._left[kind] -= len(values) // width
        if self._left[kind] < 0:
            raise ValueError(f"more than {self._wanted[kind]} {_KINDS[kind]}")
        each = iter(values)
        return zip(*[each] * width, strict=True)


class Survey(Restore[None]):
    """Checks chunks as ``Restore`` does, to the last row, and keeps only numbers: for who wants to know what
    a snapshot holds, and whether it can be restored.
    """

    def __init__(self) -> None:
        super().__init__(lambda machine: None)

    @property
    def keys(self) -> int:
        """How many have been fed."""
        return self._keys

    @property
    def revision(self) -> int:
        """The machine's."""
        return self._machine.store.revision

    def _append(self, key: bytes, row: bytes) -> None:
        self._keys += 1


def founding_chunks(chunks: Iterable[bytes], bump_revision: int) -> Iterator[bytes]:
    """A machine's chunks as those of a new cluster's: no sessions, for there are no batches of its nodes yet,
    and the old nodes' may have their names; and a revision that is ``bump_revision`` higher, beyond what
    anyone has seen of the old cluster. The rest is as it was.

    Raises ValueError where the revision would be too large, or for a head that is none; the rest isn't
    checked (``Survey`` does).
    """
    rest = filter(None, chunks)
    head = _unpack(next(rest, b""), _MAX_HEAD_VALUES)
    if not head or len(head) != _HEAD_VALUES.get(head[0]):
        raise ValueError("the first chunk is no machine's")
    version, revision, keys, nodes, *more = head
    if not revision <= revision + bump_revision <= MAX_REVISION:
        raise ValueError(f"revision {revision} can't be raised by {bump_revision}")
    yield bytes(msgpack.packb([version, revision + bump_revision, keys, 0, *more]))
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
