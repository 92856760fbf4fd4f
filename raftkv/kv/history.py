"""What changed, in order: past rows for reads at an earlier revision, and events for those who watch.

Each change is a tuple ``(revision, key, old row, new row)``; None stands for no row. The changes of one
revision stand together, at most one for a key. They are part of the replicated state: what is kept is a
function of the log alone.

A plain read never comes here, and a write appends one tuple. To read the past, one goes back from the row
that is there now: a row's mod_revision leads to the change that made it, and that to the row before.

Kept are the last ``MAX_CHANGES`` changes and ``MAX_BYTES`` of them; what is beyond goes in whole blocks. A
garbage collection looks at the blocks and once at each new tuple; a tuple of bytes isn't tracked any more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from zlib import crc32

from raftkv.kv.row import mod_revision_of

Change = tuple[int, bytes, bytes | None, bytes | None]
"""(revision, key, row before, row after); None: there was none, or there is none any more"""

BLOCK_BYTES = 256 << 10
MAX_CHANGES = 100_000
MAX_BYTES = 64 << 20  # of keys and new rows

_REVISION = itemgetter(0)
_TUPLE_BYTES = 80
_MAX_STEPS = 16  # back through a key's changes, before all that came after are looked through


class Compacted(Exception):
    """The revision asked for is gone; ``oldest`` is the first that can be read, or watched from."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revisions before {oldest} are compacted")
        self.oldest = oldest


class History:
    """Changes with a revision above ``compacted``. ``checksum`` is over all there ever were since the history
    began, in order: two machines with the same one at the same revision have changed in the same way.
    """

    def __init__(self, compacted: int, checksum: int = 0) -> None:
        self.compacted = compacted
        self.checksum = checksum
        self.mark: tuple[int, int] | None = None  # (revision, checksum) where the last block ended
        self.time_ms = 0  # the cluster time now
        # NB: one entry a block; a revision's changes are all in one. The first one's are never looked at.
        self._blocks: list[list[Change]] = [[]]
        self._firsts: list[int] = [0]  # the first revision in it
        self._begun_ms: list[int] = [0]  # the cluster time when it began
        self._sizes: list[int] = [0]  # the last one's counts when it is full
        self._len = self._bytes = 0  # of all but the last block
        self._last: list[Change] = self._blocks[0]
        self._room = BLOCK_BYTES  # in the last block
        self._deleted: dict[bytes, list[int]] = {}  # when, of keys that were, as far as is kept

    def __len__(self) -> int:
        return self._len + len(self._last)

    @property
    def size_bytes(self) -> int:
        return self._bytes + BLOCK_BYTES - self._room

    @property
    def last_revision(self) -> int:
        """Of the last change that is kept; else ``compacted``."""
        return self._last[-1][0] if self._last else self.compacted

    # -- what happens --------------------------------------------------------------------------------------

    def extend(self, changes: Iterable[Change]) -> None:
        """``changes`` are in order; the first one's revision is that of the last change here, or above it."""
        # NB: runs for every write on every node.
        last, room, checksum = self._last, self._room, self.checksum
        for change in changes:
            revision, key, _, new = change
            if room <= 0 and last[-1][0] != revision:
                self._room, self.checksum = room, checksum
                self._next_block(revision)
                last, room = self._last, self._room
            last.append(change)
            if new is None:
                room -= len(key) + _TUPLE_BYTES
                checksum = crc32(key, checksum ^ revision & 0xFFFFFFFF)
                self._deleted.setdefault(key, []).append(revision)
            else:
                room -= len(key) + len(new) + _TUPLE_BYTES
                checksum = crc32(new, crc32(key, checksum))
        self._room, self.checksum = room, checksum

    def _next_block(self, revision: int) -> None:
        self.mark = self._last[-1][0], self.checksum
        self._sizes[-1] = BLOCK_BYTES - self._room
        self._bytes += self._sizes[-1]
        self._len += len(self._last)
        self._last, self._room = [], BLOCK_BYTES
        self._blocks.append(self._last)
        self._firsts.append(revision)
        self._begun_ms.append(self.time_ms)
        self._sizes.append(0)
        while self._len > MAX_CHANGES or self._bytes > MAX_BYTES:
            self.compact(self._blocks[0][-1][0])

    def compact(self, revision: int) -> None:
        """Forget the changes up to ``revision``. What is asked for and is gone already changes nothing."""
        if revision <= self.compacted:
            return
        self.compacted = revision
        while len(self._blocks) > 1 and self._blocks[0][-1][0] <= revision:
            self._forget(self._blocks[0])
            self._bytes -= self._sizes[0]
            self._len -= len(self._blocks[0])
            for each in (self._blocks, self._firsts, self._begun_ms, self._sizes):
                del each[0]
        self._cut_first(revision)

    def _cut_first(self, revision: int) -> None:
        """Of the first block, what is gone. NB: made anew, for an export may hold the old one."""
        block = self._blocks[0]
        at = bisect_right(block, revision, key=_REVISION)
        if not at:
            return
        self._forget(block[:at])
        gone_bytes = sum(_size_of(change) for change in block[:at])
        kept = self._blocks[0] = block[at:]
        if block is self._last:
            self._last = kept
            self._room += gone_bytes
        else:
            self._bytes -= gone_bytes
            self._sizes[0] -= gone_bytes
            self._len -= at

    def _forget(self, changes: list[Change]) -> None:
        for _, key, _, new in changes:
            if new is None:
                revisions = self._deleted[key]
                del revisions[0]
                if not revisions:
                    del self._deleted[key]

    # -- what was ------------------------------------------------------------------------------------------

    def check(self, revision: int) -> None:
        """Raises ``Compacted`` unless the store can be read as it was at ``revision``."""
        if revision < self.compacted:
            raise Compacted(self.compacted)

    def since(self, revision: int) -> Iterator[Change]:
        """The changes after ``revision``, in order. Nothing may be appended or compacted meanwhile.

        Raises ``Compacted``.
        """
        self.check(revision)
        return self._from(revision + 1)

    def _from(self, revision: int) -> Iterator[Change]:
        at = max(0, bisect_right(self._firsts, revision) - 1)
        block = self._blocks[at]
        yield from islice(block, bisect_left(block, revision, key=_REVISION), None)
        for later in range(at + 1, len(self._blocks)):
            yield from self._blocks[later]

    def row_at(self, key: bytes, now: bytes | None, revision: int) -> bytes | None:
        """``key``'s row at ``revision``; ``now`` is the one that it has. Raises ``Compacted``."""
        self.check(revision)
        row, before = now, None
        for _ in range(_MAX_STEPS):
            if row is None:
                deleted = self._deleted.get(key, ())
                at = len(deleted) if before is None else bisect_left(deleted, before)
                if not at or deleted[at - 1] <= revision:
                    return None
                before = deleted[at - 1]
            else:
                before = mod_revision_of(row)
                if before <= revision:
                    return row
            row = self._old_row(before, key)
        return self.rows_at(revision, key, key + b"\0")[key]

    def _old_row(self, revision: int, key: bytes) -> bytes | None:
        """The one that the change of ``key`` at ``revision`` replaced."""
        for changed_at, changed, old, _ in self._from(revision):
            if changed == key and changed_at == revision:
                return old
            if changed_at > revision:
                break
        raise KeyError(f"no change of {key!r} at {revision}")

    def rows_at(self, revision: int, start: bytes, end: bytes | None) -> dict[bytes, bytes | None]:
        """What the keys from ``start`` to before ``end`` (None: all) that were changed after ``revision`` had
        at it. Raises ``Compacted``.
        """
        rows: dict[bytes, bytes | None] = {}
        for _, key, old, _ in self.since(revision):
            if key not in rows and key >= start and (end is None or key < end):
                rows[key] = old
        return rows

    def compactable(self, keep: int, before_ms: float) -> int:
        """Up to which revision whole blocks may go, so that ``keep`` changes or more are left, and of the
        others only those that are younger than ``before_ms`` (cluster time); 0: none.
        """
        left, upto = len(self), 0
        for block, next_begun_ms in zip(self._blocks, self._begun_ms[1:], strict=False):
            left -= len(block)
            if left < keep and next_begun_ms >= before_ms:
                break
            upto = block[-1][0]
        return upto

    # -- snapshots -----------------------------------------------------------------------------------------

    def blocks(self) -> list[tuple[int, list[Change]]]:
        """(when it began, changes) of each block as it is now; what is appended later isn't seen."""
        blocks = [*self._blocks[:-1], self._last.copy()]
        begun_ms = [0, *self._begun_ms[1:]]
        return [each for each in zip(begun_ms, blocks, strict=True) if each[1]]

    def add_block(self, begun_ms: int, revision: int) -> None:
        """One of ``blocks`` follows, by ``append``, from ``revision`` on, while they are read back."""
        self.time_ms = begun_ms
        if self._last:
            self._next_block(revision)
            self.mark = None  # what the checksum was there isn't known


def _size_of(change: Change) -> int:
    _, key, _, new = change
    return len(key) + (len(new) if new is not None else 0) + _TUPLE_BYTES
