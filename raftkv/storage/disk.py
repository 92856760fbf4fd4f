"""The one thread that writes and fsyncs: ``ports.Storage`` over a ``Wal``.

Rules:

- Group commit: whatever waits when the thread is free becomes one batch, one write, one fdatasync. Nobody
  waits for a timer: while one fsync runs, the next group gathers.
- Writes, and removals of old segments, complete first in, first out, and writes only after their fsync. All
  ``then`` of a group run in one posted call: waking the caller's loop costs more than running them.
- The first failure is the last: it is posted once, nothing is completed after it, nothing is tried again.
- The queue has no bound of its own, since ``write`` must not block: consensus bounds what isn't on it yet
  (``Limits.max_unsettled_bytes``, ``max_inflight_bytes``). A group is bounded by ``max_group_bytes``.

It doesn't know asyncio: ``post`` hands a call to the thread that owns the replica.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from time import perf_counter

from raftkv.consensus.types import Index, Write
from raftkv.storage.wal import Wal

MAX_GROUP_BYTES = 8 << 20
CLOSE_DEADLINE_S = 5.0
_Then = Callable[[], None]


@dataclass(frozen=True, slots=True)
class DiskStatistics:
    """Since the start. Times are seconds of fdatasync alone."""

    writes: int  # completed
    waiting: int  # queued, not yet taken by the thread
    fsyncs: int
    bytes: int  # written to the log by completed writes
    last_fsync_s: float
    slowest_fsync_s: float
    total_fsync_s: float
    failed: bool


class Disk:
    """The node's durable state behind a queue. ``write`` and ``close`` belong to one thread, the caller's."""

    def __init__(
        self,
        wal: Wal,
        post: Callable[[_Then], object],
        on_failure: Callable[[BaseException], None],
        *,
        max_group_bytes: int = MAX_GROUP_BYTES,
        on_fsync: Callable[[float], None] | None = None,
    ) -> None:
        """``post`` (as ``loop.call_soon_threadsafe``) runs a call on the caller's thread; it alone is called
        from the disk's thread, but for ``on_fsync``, which gets every fsync's seconds *there* and must be
        quick. ``on_failure`` is posted, at most once, with a ``StartError`` where the disk failed."""
        self._wal = wal
        self._post = post
        self._on_failure = on_failure
        self._max_group_bytes = max_group_bytes
        self._on_fsync = on_fsync
        # SimpleQueue: in C, wakes a waiting thread for under a microsecond, costs a tenth while it is busy.
        self._queue: SimpleQueue[tuple[Write | Index, _Then] | None] = SimpleQueue()
        self._closed = False
        self._failed = False
        self._writes = self._fsyncs = self._bytes = 0
        self._last_fsync_s = self._slowest_fsync_s = self._total_fsync_s = 0.0
        self._thread = threading.Thread(target=self._run, name="raftkv-disk", daemon=True)
        self._thread.start()

    def write(self, write: Write, then: _Then) -> None:
        """See ``ports.Storage``. After ``close`` or a failure the write is dropped, and never completes."""
        if not (self._failed or self._closed):
            self._queue.put((write, then))

    def drop_before(self, index: Index, then: _Then) -> None:
        """Remove old segments, once all that was queued before is durable; see ``Wal.drop_before``.

        As ``write`` it never blocks, and after ``close`` or a failure it is dropped.
        """
        if not (self._failed or self._closed):
            self._queue.put((index, then))

    def close(self) -> None:
        """Finish what is queued, then close the log. Idempotent.

        Blocks for ``CLOSE_DEADLINE_S`` at most: a hung disk must not keep a process alive that was told to
        stop. What it hasn't confirmed by then was never acknowledged.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join(CLOSE_DEADLINE_S)
        if not self._thread.is_alive():
            self._wal.close()

    def statistics(self) -> DiskStatistics:
        return DiskStatistics(
            writes=self._writes,
            waiting=self._queue.qsize(),
            fsyncs=self._fsyncs,
            bytes=self._bytes,
            last_fsync_s=self._last_fsync_s,
            slowest_fsync_s=self._slowest_fsync_s,
            total_fsync_s=self._total_fsync_s,
            failed=self._failed,
        )

    def _run(self) -> None:
        is_open = True
        while is_open:
            writes, thens, drop, is_open = self._take()
            if not thens:
                continue
            try:
                self._commit(writes)
                if drop is not None:
                    self._wal.drop_before(drop)
            except BaseException as error:  # whatever it is, nothing may be acknowledged from here on
                self._failed = True
                self._try_post(partial(self._on_failure, error))
                return
            self._writes += len(writes)
            self._try_post(_all_of(thens))

    def _take(self) -> tuple[list[Write], list[_Then], Index | None, bool]:
        """All that waits, up to the bound or to a removal, which is the third; waits for the first. The last
        is False once closed.
        """
        writes: list[Write] = []
        thens: list[_Then] = []
        size_bytes = 0
        queue = self._queue
        item = queue.get()
        while item is not None:
            write, then = item
            thens.append(then)
            if not isinstance(write, Write):
                return writes, thens, write, True
            writes.append(write)
            size_bytes += sum([len(entry.data) for entry in write.entries])
            if size_bytes >= self._max_group_bytes or queue.empty():
                return writes, thens, None, True
            item = queue.get()  # NB: the only reader, so what isn't empty stays so
        return writes, thens, None, False

    def _commit(self, writes: list[Write]) -> None:
        size_bytes = self._wal.append(writes)
        if not size_bytes:
            return
        start = perf_counter()
        self._wal.sync()
        seconds = perf_counter() - start
        self._fsyncs += 1
        self._bytes += size_bytes
        self._last_fsync_s = seconds
        self._slowest_fsync_s = max(self._slowest_fsync_s, seconds)
        self._total_fsync_s += seconds
        if self._on_fsync is not None:
            self._on_fsync(seconds)

    def _try_post(self, call: _Then) -> None:
        with suppress(RuntimeError):  # the caller's loop is closed: nobody is there any more to be told
            self._post(call)


def _all_of(thens: list[_Then]) -> _Then:
    if len(thens) == 1:
        return thens[0]

    def run() -> None:
        for then in thens:
            then()

    return run
