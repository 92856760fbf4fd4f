"""The store as it was at one moment, read piece by piece while the store goes on: copy on write.

What hasn't changed since is read from the store itself. Before a key's row is replaced or removed, the store
shows it here (``keep``); it is kept if it belongs to the image and hasn't been read yet. Which rows belong is
told by their revisions alone: every change takes a new one, so a row whose mod_revision is beyond the image's
came later. Nothing has to be marked, a row is kept at most once, and an image costs memory only for what is
changed or removed while it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from raftkv.kv.ordered import OrderedRows
from raftkv.kv.row import mod_revision_of

PIECE_BYTES = 64 << 10  # of keys and rows; a piece ends with the row that reaches it
MAX_PIECE_ROWS = 1_000
MAX_STEP_ROWS = 1_000  # looked at in one step, those that came later included


class Image:
    """The rows of ``rows`` at ``revision``, which is the highest that any of them has now."""

    def __init__(self, rows: OrderedRows, revision: int) -> None:
        self.revision = revision
        self.keys = len(rows)
        self.is_read = False  # to its end
        self._rows = rows
        self._kept: list[tuple[bytes, bytes]] = []  # a heap of (key, row); no key below _next
        self.kept_bytes = 0  # of its keys and rows, which the store may have let go of
        self._next = b""  # every key below it has been read
        self._piece: list[bytes] = []  # the one being gathered: key, row, key, row ...
        self._piece_bytes = 0

    def keep(self, key: bytes, row: bytes) -> None:
        """``row`` of ``key`` is about to be replaced or removed."""
        if key >= self._next and mod_revision_of(row) <= self.revision:
            heappush(self._kept, (key, row))
            self.kept_bytes += len(key) + len(row)

    def step(self) -> list[bytes]:
        """Read on a little: the next piece, ``[key, row, key, row ...]`` in the order of keys, if it has
        become complete, else an empty list. How the rows fall into pieces depends on nothing but them.
        """
        piece, piece_bytes, revision = self._piece, self._piece_bytes, self.revision
        for looked_at, pair in enumerate(self._remaining(), 1):
            key, row = pair
            if mod_revision_of(row) <= revision:
                piece += pair
                piece_bytes += len(key) + len(row)
                if piece_bytes >= PIECE_BYTES or len(piece) == 2 * MAX_PIECE_ROWS:
                    self._next = key + b"\0"
                    self._piece, self._piece_bytes = [], 0
                    return piece
            if looked_at == MAX_STEP_ROWS:
                self._next = key + b"\0"
                self._piece_bytes = piece_bytes
                return []
        self.is_read = True
        return piece

    def _remaining(self) -> Iterator[tuple[bytes, bytes]]:
        """What is left, in order: rows of the store, later ones included, and those kept. A row is taken out
        of ``_kept`` when it is asked for.
        """
        rows = self._rows.ascending(self._next)
        return self._with_kept(rows) if self._kept else rows

    def _with_kept(self, rows: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        kept = self._kept
        for pair in rows:
            while kept and kept[0][0] <= pair[0]:
                yield self._pop()
            yield pair
        while kept:
            yield self._pop()

    def _pop(self) -> tuple[bytes, bytes]:
        key, row = heappop(self._kept)
        self.kept_bytes -= len(key) + len(row)
        return key, row
