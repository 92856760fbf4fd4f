"""A leader's snapshot that comes to this node: written to its disk and read into a machine at once.

Rules:

- One at a time; a newer one replaces it, an older one is refused.
- Durable first, installed then, acknowledged last: by the core's own message, which leaves when the log says
  durably that it begins after the snapshot, and then by the answer to the request.
- The chunks are fed in the loop's turns, with others' between them. The file is written on its own thread.
- What this node's log holds already isn't received: the core says so to the leader.
- A disk that is full for it is no reason to stop: it is refused, and offered again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import Index, Membership, NodeId
from raftkv.errors import StartError
from raftkv.replica import Replica
from raftkv.server.driver import Driver
from raftkv.server.pace import Pace
from raftkv.server.snapshot_file import SnapshotFile
from raftkv.server.snapshots import LogDisk, Snapshots, Taken
from raftkv.server.worker import Worker
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.transport.snapshots import SnapshotRefused
from raftkv.wire.snapshots import Offer

logger = structlog.get_logger(__name__)

_SHARE = 0.5  # of the loop's time: a follower that is behind has little else to do
_BAD, _CONFLICT, _STOPPING, _DISK = 400, 409, 503, 507


class SnapshotReceiver:
    def __init__(
        self,
        *,
        replica: Replica,
        driver: Driver,
        snapshots: Snapshots,
        files: SnapshotFiles,
        worker: Worker,
        disk: LogDisk,
    ) -> None:
        """``worker`` and ``files`` are those of ``snapshots``."""
        self._replica = replica
        self._driver = driver
        self._snapshots = snapshots
        self._files = files
        self._worker = worker
        self._disk = disk
        self._current: _Coming | None = None
        self._stopped = False

    def offered(self, sender: NodeId, offer: Offer) -> _Coming | None:
        """See ``transport.snapshots.Offered``."""
        node = self._replica.node
        if self._stopped:
            raise SnapshotRefused(_STOPPING, f"{node.node_id} is stopping")
        if offer.group != node.group:
            raise SnapshotRefused(_BAD, f"{node.node_id} has no group {offer.group}")
        self.check_term(offer)
        membership = self._membership(offer)
        meta = offer.meta
        if meta.index <= node.commit_index or node.log.matches(meta.index, meta.term):
            # The leader can't know how far our log reaches, or it wouldn't offer it: this tells it.
            self._driver.install(sender, offer.term, meta, node.membership, self._replica.restorer())
            return None
        current = self._current
        if current is not None:
            if (offer.term, meta.index) < (current.offer.term, current.offer.meta.index):
                raise SnapshotRefused(_CONFLICT, f"{node.node_id} is being sent a newer one")
            current.replace(f"{sender} sends a newer one, or this one again")
        self._snapshots.abort()
        logger.info("receiving a snapshot", sender=sender, index=meta.index, term=offer.term)
        file = SnapshotFile(self._worker, self._files, meta, offer.extra)
        self._current = _Coming(self, sender, offer, membership=membership, file=file, replica=self._replica)
        return self._current

    def _membership(self, offer: Offer) -> Membership:
        """The one in force at the snapshot's end. Raises ``SnapshotRefused`` where it can't be read."""
        if not offer.extra:  # the release that took it knew no changes: what was in force before still was
            return self._replica.node.membership
        try:
            return decode_membership(offer.extra)
        except ValueError as error:
            raise SnapshotRefused(_BAD, f"its membership can't be read: {error}") from error

    def check_term(self, offer: Offer) -> None:
        """Raises ``SnapshotRefused`` once there is a later term: who sends it leads no more."""
        node = self._replica.node
        if offer.term < node.current_term:
            raise SnapshotRefused(_CONFLICT, f"term {offer.term} is over; it is {node.current_term} now")

    async def install(self, coming: _Coming, size_bytes: int) -> None:
        """It is durable: become it. Returns when this node's log says so durably."""
        meta, node = coming.offer.meta, self._replica.node
        self._snapshots.abort()
        self._driver.install(coming.sender, coming.offer.term, meta, coming.membership, coming.restoring)
        # What lies before is of no use to anyone, an older snapshot included: the log doesn't join it.
        unused = meta.index if node.log.boundary == meta else Index(0)
        durable = asyncio.Event()
        self._disk.drop_before(unused, durable.set)  # in its turn: after the write that says it
        await durable.wait()
        logger.info("snapshot installed", sender=coming.sender, index=meta.index, bytes=size_bytes)
        try:
            await self._snapshots.keep(Taken(meta, size_bytes))
        except StartError as error:
            logger.error("an old snapshot can't be removed", reason=str(error))

    def ended(self, coming: _Coming) -> None:
        if self._current is coming:
            self._current = None

    def stop(self) -> None:
        self._stopped = True
        if self._current is not None:
            self._current.replace("this node is stopping")

    def status(self) -> dict[str, Any] | None:
        coming = self._current
        if coming is None:
            return None
        return {
            "from": coming.sender,
            "index": coming.offer.meta.index,
            "received_bytes": coming.received_bytes,
        }


class _Coming:
    """``transport.snapshots.Incoming``."""

    def __init__(
        self,
        receiver: SnapshotReceiver,
        sender: NodeId,
        offer: Offer,
        *,
        membership: Membership,
        file: SnapshotFile,
        replica: Replica,
    ) -> None:
        self.sender = sender
        self.offer = offer
        self.membership = membership
        self.restoring = replica.restorer()
        self.received_bytes = 0
        self._receiver = receiver
        self._file = file
        self._pace = Pace(_SHARE)
        self._why_not: str | None = None

    def replace(self, why: str) -> None:
        self._why_not = why

    async def chunk(self, chunk: bytes) -> None:
        self._check()
        try:
            await self._file.append([chunk])
        except StartError as error:
            raise _disk_refuses(error) from error
        try:
            with self._pace.work():
                self.restoring.feed(chunk)
        except ValueError as error:
            raise SnapshotRefused(_BAD, f"this machine can't be read: {error}") from error
        self.received_bytes += len(chunk)
        await self._pace.rest()

    async def finish(self) -> None:
        self._check()
        try:
            size_bytes = await self._file.finish()
            self._check()
            await self._receiver.install(self, size_bytes)
        except StartError as error:
            raise _disk_refuses(error) from error

    def give_up(self) -> None:
        self._file.abort()
        self._receiver.ended(self)

    def _check(self) -> None:
        if self._why_not is not None:
            raise SnapshotRefused(_CONFLICT, self._why_not)
        self._receiver.check_term(self.offer)


def _disk_refuses(error: StartError) -> SnapshotRefused:
    logger.error("a snapshot can't be received", reason=str(error))
    return SnapshotRefused(_DISK, str(error))
