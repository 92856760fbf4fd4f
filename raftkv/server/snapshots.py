"""This node's own snapshots: when one is taken, how, and what may go once it is durable.

Rules:

- The machine is exported in the loop's turns, chunk by chunk, at no more than a share of the loop's time;
  files are written on a thread of their own. So neither a request nor a heartbeat waits for a snapshot.
- Nothing goes before the snapshot is durable. Then the log in memory goes up to it, but for a margin for slow
  followers; of the files the newest two stay; segments go only up to the older of those two, so that a
  damaged newest one costs nothing. Segments are removed by the log's own thread, after what was queued there.
- A snapshot that can't be written is no reason to stop: the log still has everything. It is logged, and tried
  again when the log has grown by a quarter of the bound. (Where the log itself can't be written, the node
  stops.)
- One at a time. Whoever asks while one is taken gets that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from raftkv.consensus.membership import encode_membership
from raftkv.consensus.ready import Ready
from raftkv.consensus.types import NO_SNAPSHOT, Entry, Index, SnapshotMeta
from raftkv.errors import SnapshotFailed, StartError
from raftkv.kv.machine import Exporting
from raftkv.replica import Replica
from raftkv.server.pace import Pace
from raftkv.server.snapshot_file import SnapshotFile
from raftkv.server.worker import Worker
from raftkv.storage.snapshot import snapshot_name
from raftkv.storage.snapshots import SnapshotFiles

logger = structlog.get_logger(__name__)

KEPT = 2
ENTRY_BYTES = 64  # what an entry costs beside its data, on the disk

_SHARE = 0.2  # of the loop's time
_LUMP_BYTES = 512 << 10  # of chunks, handed to the thread at once: waking it costs more than one of them
_COMPACTED_ENTRIES = 4_000  # at once; a millisecond or two
# Between two snapshots the log grows by as much as the last one took, from one bound to so many: else a large
# machine's would be written many times for each byte that clients write.
_MAX_INTERVAL_BOUNDS = 4
_MAX_HELD_BOUNDS = 8  # the log waits for a snapshot's way to a follower until it is so many times the bound


class LogDisk(Protocol):
    def drop_before(self, index: Index, then: Callable[[], None]) -> None:
        """See ``Disk.drop_before``."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """A durable snapshot."""

    meta: SnapshotMeta
    size_bytes: int


NOTHING_TAKEN = Taken(NO_SNAPSHOT, 0)


@dataclass(slots=True)
class _Log:
    """What is in the log, in bytes."""

    applied_bytes: int  # of entries that are applied and in memory
    grown_bytes: int = 0  # since the last snapshot
    due_bytes: float = 0.0  # when the next one is taken
    held: list[Index] = field(default_factory=list)  # where snapshots end that are on their way


class Snapshots:
    """To be told of every turn (``turned``). All happens on the loop's thread but for the files."""

    def __init__(
        self,
        *,
        replica: Replica,
        disk: LogDisk,
        files: SnapshotFiles,
        worker: Worker,
        newest: Taken,
        bound_bytes: int,
        margin_bytes: int,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """``newest`` is what the replica's machine was restored from. ``worker`` is the only one to write
        ``files``; it may do other things too. ``on_fatal`` is told of a broken invariant, or a bug.
        """
        self.newest = newest
        self._replica = replica
        self._disk = disk
        self._files = files
        self._worker = worker
        self._bound_bytes = bound_bytes
        self._margin_bytes = margin_bytes
        self._on_fatal = on_fatal
        log = replica.node.log
        kept = log.slice(Index(log.boundary.index + 1), 1 << 62, replica.last_applied)
        self._log = _Log(_data_bytes(kept), due_bytes=self._interval_bytes)
        self._task: asyncio.Task[Taken | SnapshotFailed] | None = None
        self._stopped = False
        self.longest_step_ms = 0.0

    # -- when ----------------------------------------------------------------------------------------------

    def turned(self, ready: Ready) -> None:
        """A turn is over, and what ``ready`` says is applied."""
        log = self._log
        if ready.installed is not None:
            log.applied_bytes = log.grown_bytes = 0
        if not ready.committed:
            return
        size_bytes = _data_bytes(ready.committed)
        log.applied_bytes += size_bytes
        log.grown_bytes += size_bytes + ENTRY_BYTES * len(ready.committed)
        if log.grown_bytes >= log.due_bytes:
            self._begin()

    @property
    def _interval_bytes(self) -> int:
        bound = self._bound_bytes
        return min(max(bound, self.newest.size_bytes), _MAX_INTERVAL_BOUNDS * bound)

    async def take(self) -> Taken:
        """A durable snapshot of what is applied now, or the one that is being taken already.

        Raises ``SnapshotFailed``.
        """
        if self._task is None and self.newest.meta.index == self._replica.last_applied > 0:
            return self.newest
        task = self._begin()
        if task is None:
            raise SnapshotFailed("this node is stopping, or has nothing applied yet")
        await asyncio.wait({task})
        if task.cancelled():
            raise SnapshotFailed("the snapshot was given up: this node stops, or gets the leader's")
        result = task.result()
        if isinstance(result, SnapshotFailed):
            raise result
        return result

    def abort(self) -> None:
        """Give up the one that is being taken: a leader's snapshot replaces the machine."""
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        self._stopped = True
        self.abort()

    def _begin(self) -> asyncio.Task[Taken | SnapshotFailed] | None:
        if self._task is None and not self._stopped and self._replica.last_applied > 0:
            self._task = asyncio.create_task(self._run(), name="snapshot")
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: object) -> None:
        self._task = None

    async def _run(self) -> Taken | SnapshotFailed:
        """Take one. Raises nothing but its being cancelled, for perhaps nobody looks."""
        log, grown_bytes = self._log, self._log.grown_bytes
        try:
            taken = await self._take()
            log.grown_bytes = max(0, log.grown_bytes - grown_bytes)
            await self.keep(taken)
            return taken
        except asyncio.CancelledError:
            logger.info("snapshot given up")
            raise
        except (StartError, SnapshotFailed) as error:
            log.due_bytes = log.grown_bytes + self._bound_bytes / 4
            logger.error("snapshot failed; the log grows on until the next is tried", reason=str(error))
            return SnapshotFailed(f"no snapshot could be written: {error}")
        except Exception as error:
            self._on_fatal(error)
            return SnapshotFailed("this node is broken and stops")

    # -- how -----------------------------------------------------------------------------------------------

    async def _take(self) -> Taken:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        try:
            meta, export = self._replica.capture()
        except RuntimeError as error:  # as many backups are being read as there may be
            raise SnapshotFailed(str(error)) from None
        pace = Pace(_SHARE)
        # NB: the log that says it may be gone when this is read again.
        members = encode_membership(self._replica.node.membership_at(meta.index))
        file = SnapshotFile(self._worker, self._files, meta, members)
        try:
            await self._write(export, file, pace)
            size_bytes = await file.finish()
        except BaseException:
            file.abort()
            raise
        finally:
            export.close()
        self.longest_step_ms = pace.longest_s * 1000
        logger.info(
            "snapshot taken",
            index=meta.index,
            term=meta.term,
            bytes=size_bytes,
            took_ms=round((loop.time() - start_s) * 1000),
            longest_step_ms=round(self.longest_step_ms, 1),
        )
        return Taken(meta, size_bytes)

    async def _write(self, export: Exporting, file: SnapshotFile, pace: Pace) -> None:
        lump: list[bytes] = []
        lump_bytes = 0
        while True:
            with pace.work():
                chunk = next(export, None)
            if chunk:
                lump.append(chunk)
                lump_bytes += len(chunk)
            if lump and (chunk is None or lump_bytes >= _LUMP_BYTES):
                await file.append(lump)
                lump, lump_bytes = [], 0
            if chunk is None:
                return
            await pace.rest()

    # -- what may go ---------------------------------------------------------------------------------------

    async def keep(self, taken: Taken) -> None:
        """``taken`` is durable: forget what isn't needed any more. Raises ``StartError`` where the disk
        refuses to remove a snapshot; nothing is lost by that.
        """
        if taken.meta.index >= self.newest.meta.index:
            self.newest = taken
            self._log.due_bytes = self._interval_bytes
        await self._compact(taken.meta.index)
        await self._worker.do(lambda: self._files.keep_newest(KEPT))
        kept = await self._worker.do(self._files.metas)
        if len(kept) >= KEPT:
            # NB: a margin that is longer than the way to the older one stays on the disk, too.
            index = min(kept[-1].index, self._replica.node.log.boundary.index)
            self._disk.drop_before(index, _nothing)

    async def _compact(self, covered: Index) -> None:
        """Let go of the log in memory piece by piece: many entries take long to be freed."""
        log, counted = self._replica.node.log, self._log
        # NB: one that came and wasn't needed may cover what is committed and not yet applied.
        target = min(covered, self._replica.last_applied, log.tail_within(self._margin_bytes))
        if counted.held and counted.applied_bytes < _MAX_HELD_BOUNDS * self._bound_bytes:
            target = min(target, *counted.held)
        while (before := log.boundary.index) < target:
            upto = Index(min(target, before + _COMPACTED_ENTRIES))
            going = log.slice(Index(before + 1), 1 << 62, upto)
            self._replica.compact(upto)
            gone = going[: log.boundary.index - before]
            counted.applied_bytes -= _data_bytes(gone)
            if log.boundary.index != upto:
                return  # a leader needs the rest until its own disk has it
            del going, gone
            await asyncio.sleep(0)

    @contextmanager
    def hold(self, meta: SnapshotMeta) -> Iterator[None]:
        """While a follower is sent this one, keep the entries that it needs next."""
        held = self._log.held
        held.append(meta.index)
        try:
            yield
        finally:
            held.remove(meta.index)

    async def set_aside(self, path: Path) -> None:
        """The newest is found damaged: the next that is needed is taken anew."""
        if path.name == snapshot_name(self.newest.meta):
            self.newest = NOTHING_TAKEN
        try:
            await self._worker.do(lambda: self._files.set_aside(path))
        except StartError as error:
            logger.error("a damaged snapshot can't be set aside", reason=str(error))

    # -- to be looked at -----------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """JSON types. ``age_ms`` is in cluster time: between the snapshot's last entry and the log's."""
        meta, log = self.newest.meta, self._replica.node.log
        age_ms = max(0, log.last_time_ms - meta.time_ms)
        return {
            "index": meta.index or None,
            "term": meta.term if meta.index else None,
            "bytes": self.newest.size_bytes,
            "age_ms": age_ms if meta.index else None,
            "taking": self._task is not None,
            "longest_step_ms": round(self.longest_step_ms, 1),
            "log_grown_bytes": self._log.grown_bytes,
        }

    def log_status(self) -> dict[str, int]:
        """The log in memory: its entries, and the data of those that are applied."""
        log = self._replica.node.log
        return {
            "begins_after": log.boundary.index,
            "entries": log.last_index - log.boundary.index,
            "applied_bytes": self._log.applied_bytes,
        }


def _data_bytes(entries: tuple[Entry, ...]) -> int:
    return sum([len(entry.data) for entry in entries])


def _nothing() -> None:
    pass
