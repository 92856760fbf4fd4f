"""A leader's snapshots on their way to followers that lack what its log no longer has.

Rules:

- Whom the core asks a snapshot for gets the newest one, from its beginning, each over a request of its own.
  However that ends, the core is told; if the follower still lacks it, the core asks again.
- Read on a thread, sent at a bounded rate for all together: requests, heartbeats and the log don't wait.
- Only while this node leads in the term that it offered it in.
- After a failure the core is told a little later each time, so that a follower that can't take it isn't
  offered it with every heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import NodeId, Term
from raftkv.errors import SnapshotFailed, StartError
from raftkv.replica import Replica
from raftkv.server.driver import Driver
from raftkv.server.pace import TokenBucket
from raftkv.server.snapshots import Snapshots, Taken
from raftkv.server.worker import Worker
from raftkv.storage.snapshot import DamagedSnapshotError, SnapshotReader
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.transport.snapshots import SnapshotNotTaken
from raftkv.wire.snapshots import Offer

logger = structlog.get_logger(__name__)

_LUMP_BYTES = 256 << 10  # of chunks, read and sent at once; less at a low rate
_LUMP_S = 0.05
_MIN_DELAY_S = 0.1  # after a failure; doubles up to
_MAX_DELAY_S = 2.0


class SnapshotTransport(Protocol):
    async def send_snapshot(self, peer: NodeId, offer: Offer, chunks: AsyncIterator[Sequence[bytes]]) -> str:
        """See ``PeerNetwork.send_snapshot``."""
        ...


@dataclass(slots=True, eq=False)
class _Way:
    """One snapshot's way to one follower."""

    task: asyncio.Task[None] | None = None
    index: int | None = None
    sent_bytes: int = 0
    size_bytes: int = 0


class _NotLeading(Exception):
    pass


class SnapshotSender:
    """To be told of every turn (``turned``)."""

    def __init__(
        self,
        *,
        replica: Replica,
        driver: Driver,
        snapshots: Snapshots,
        files: SnapshotFiles,
        transport: SnapshotTransport,
        bytes_per_s: float,
    ) -> None:
        self._replica = replica
        self._driver = driver
        self._snapshots = snapshots
        self._files = files
        self._transport = transport
        self._bucket = TokenBucket(bytes_per_s)
        self._lump_bytes = min(_LUMP_BYTES, bytes_per_s * _LUMP_S)
        self._reader = Worker("raftkv-snapshot-reader")
        self._ways: dict[NodeId, _Way] = {}
        self._delays_s: dict[NodeId, float] = {}  # after the next failure
        self._told: dict[NodeId, str] = {}  # why the last one wasn't sent
        self._stopped = False

    def turned(self, ready: Ready) -> None:
        for peer in ready.snapshots_for:
            old = self._ways.get(peer)
            if old is not None and old.task is not None:
                old.task.cancel()  # of a term that is over
            if not self._stopped:
                way = self._ways[peer] = _Way()
                way.task = asyncio.create_task(
                    self._run(peer, way, self._replica.node.current_term), name=f"snapshot to {peer}"
                )

    def stop(self) -> None:
        self._stopped = True
        for way in self._ways.values():
            if way.task is not None:
                way.task.cancel()

    def status(self) -> dict[str, dict[str, Any]]:
        """By follower: what is on its way to it, and how much of that has left."""
        return {
            peer: {"index": way.index, "sent_bytes": way.sent_bytes, "bytes": way.size_bytes}
            for peer, way in sorted(self._ways.items())
        }

    async def _run(self, peer: NodeId, way: _Way, term: Term) -> None:
        try:
            if await self._try(peer, way, term):
                self._delays_s.pop(peer, None)
                self._told.pop(peer, None)
            else:
                delay_s = self._delays_s.get(peer, _MIN_DELAY_S)
                self._delays_s[peer] = min(2 * delay_s, _MAX_DELAY_S)
                await asyncio.sleep(delay_s)
        finally:
            if self._ways.get(peer) is way:
                del self._ways[peer]
                self._driver.snapshot_ended(peer)

    async def _try(self, peer: NodeId, way: _Way, term: Term) -> bool:
        """Whether it arrived, or nobody wants it any more."""
        try:
            taken = await self._choose()
            way.index, way.size_bytes = taken.meta.index, taken.size_bytes
            logger.debug("sending a snapshot", peer=peer, index=way.index, bytes=way.size_bytes)
            with self._snapshots.hold(taken.meta):
                answer = await self._send(peer, way, term, taken)
            logger.info("snapshot sent", peer=peer, index=way.index, sent_bytes=way.sent_bytes, answer=answer)
            return True
        except _NotLeading:
            logger.info("a snapshot is sent no further: this node leads no more", peer=peer, index=way.index)
            return True
        except DamagedSnapshotError as error:
            logger.error("a snapshot is damaged: it is set aside, and a new one taken", reason=str(error))
            await self._snapshots.set_aside(error.path)
        except (SnapshotNotTaken, SnapshotFailed, StartError) as error:
            reason = str(error)
            if self._told.get(peer) != reason:  # a dead follower is tried every other second
                logger.warning("snapshot not sent", peer=peer, index=way.index, reason=reason)
            self._told[peer] = reason
        except Exception as error:  # a bug; the follower must wait, the rest need not
            logger.exception("snapshot not sent", peer=peer, index=way.index, reason=repr(error))
        return False

    async def _choose(self) -> Taken:
        """One that reaches our log's beginning."""
        newest = self._snapshots.newest
        if newest.meta.index and newest.meta.index >= self._replica.node.log.boundary.index:
            return newest
        return await self._snapshots.take()

    async def _send(self, peer: NodeId, way: _Way, term: Term, taken: Taken) -> str:
        reader = await self._reader.do(lambda: self._files.open(taken.meta))
        try:
            offer = Offer(self._replica.node.group, term, taken.meta, reader.extra)
            return await self._transport.send_snapshot(peer, offer, self._chunks(reader, way, term))
        finally:
            self._reader.later(reader.close)

    async def _chunks(self, reader: SnapshotReader, way: _Way, term: Term) -> AsyncIterator[Sequence[bytes]]:
        def read() -> list[bytes]:
            some: list[bytes] = []
            begin = reader.offset
            for chunk in reader:
                some.append(chunk)
                if reader.offset - begin >= self._lump_bytes:
                    break
            return some

        node = self._replica.node
        while some := await self._reader.do(read):
            size_bytes = sum(map(len, some))
            await self._bucket.take(size_bytes)
            if node.current_term != term or not isinstance(node.role, Leader):
                raise _NotLeading
            yield some
            way.sent_bytes += size_bytes
