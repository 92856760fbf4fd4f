"""A node's snapshots in one life: when one is taken, how it is written beside the log, what goes once it is
durable. Their ways from node to node are in ``streams``.

Chunks are exported in events of their own, between the node's turns; each call to the real ``SnapshotFiles``
is an event too, so anything may come between two of them, the end of the process included. The files' syncs
have their own times: the log never waits for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from raftkv.consensus.membership import encode_membership
from raftkv.consensus.ready import Ready
from raftkv.consensus.types import Index, Membership, NodeId, SnapshotMeta
from raftkv.errors import StartError
from raftkv.kv.machine import Exporting
from raftkv.sim.disk import THREAD_MS
from raftkv.sim.streams import Receiver, Sending
from raftkv.storage.snapshot import SnapshotWriter
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.start import Opened

if TYPE_CHECKING:
    from raftkv.sim.server import SimServer, Surroundings

KEPT = 2


@dataclass(slots=True)
class Taking:
    meta: SnapshotMeta
    membership: Membership  # in force at its end
    exporting: Exporting
    writer: SnapshotWriter | None = None
    chunks: list[bytes] = field(default_factory=list)
    is_over: bool = False


class Snapshots:
    def __init__(self, server: SimServer, around: Surroundings, opened: Opened, floor: Index) -> None:
        """``floor``: where the log begins, so no older snapshot joins it."""
        self.files: SnapshotFiles = opened.snapshots
        self.newest = opened.snapshot  # None: there is none that can be sent
        self.receiver = Receiver(server, around, self)
        self.sendings: dict[NodeId, Sending] = {}
        self.installed = 0  # how many
        self._server = server
        self._around = around
        self._plan = around.plan.snapshots
        self._random = around.world.random
        self._floor = floor
        self._grown_bytes = 0  # applied since the last one
        self._taking: Taking | None = None

    # -- the turn ------------------------------------------------------------------------------------------

    def installing(self, meta: SnapshotMeta) -> None:
        """The machine becomes another within this turn: what is exported of this one is not wanted."""
        if self._taking is not None:
            self.probe("snapshot overtaken by one installed")
            self._give_up(self._taking)
        self._floor, self._grown_bytes = meta.index, 0
        self.installed += 1
        self.probe("snapshot installed")
        self._server.later(THREAD_MS, self._remove_older)

    def turned(self, ready: Ready) -> None:
        """What was committed is applied."""
        self._grown_bytes += sum([len(entry.data) for entry in ready.committed])
        if self._plan.log_bytes and self._grown_bytes >= self._plan.log_bytes:
            self.take()
        for peer in ready.snapshots_for:
            self._send(peer)

    def _send(self, peer: NodeId) -> None:
        replica = self._server.replica
        assert replica is not None
        if peer in self.sendings:
            self.sendings[peer].give_up()
        newest = self.newest
        if newest is None or newest.index < replica.node.log.boundary.index:
            self.take()
            replica.snapshot_ended(peer)
        else:
            sending = self.sendings[peer] = Sending(self._server, self._around, self, peer, newest)
            self._server.later(THREAD_MS, sending.begin)

    def probe(self, name: str) -> None:
        self._around.world.probes[name] += 1

    # -- taking --------------------------------------------------------------------------------------------

    def take(self) -> None:
        """One of the machine as it is now, unless one is being taken, or there is one of it."""
        replica = self._server.replica
        assert replica is not None
        covered = self.newest.index if self.newest is not None else 0
        if self._taking is None and replica.last_applied > covered:
            self._grown_bytes = 0
            meta, exporting = replica.capture()
            taking = self._taking = Taking(meta, replica.node.membership_at(meta.index), exporting)
            self._later(THREAD_MS, taking, self._begin)

    def _later(self, delay_ms: float, taking: Taking, step: Callable[[Taking], None]) -> None:
        self._server.later(delay_ms, partial(self._try, taking, step))

    def _try(self, taking: Taking, step: Callable[[Taking], None]) -> None:
        """A snapshot that the disk doesn't take is no reason to stop: the log is whole without it."""
        if taking.is_over:
            return
        try:
            step(taking)
        except StartError:
            self.probe("snapshot not written")
            self._give_up(taking)

    def _begin(self, taking: Taking) -> None:
        taking.writer = self.files.begin(taking.meta, encode_membership(taking.membership))
        self._around.on_stage(self._server, False)
        self._later(THREAD_MS, taking, self._continue)

    def _continue(self, taking: Taking) -> None:
        assert taking.writer is not None
        chunk = next(taking.exporting, None)
        if chunk is None:
            self._around.on_stage(self._server, False)
            self._later(self._server.sync_ms(), taking, self._finish)
            return
        if chunk:
            taking.writer.append(chunk)
            taking.chunks.append(chunk)
        self._later(self._random.expovariate(1 / self._plan.chunk_ms), taking, self._continue)

    def _finish(self, taking: Taking) -> None:
        assert taking.writer is not None
        taking.writer.finish()
        self.named(taking.meta)
        self.probe("snapshot taken")
        self._around.world.note(f"{self._server.name} has a snapshot {taking.meta.index}@{taking.meta.term}")
        checks, who = self._around.checks, f"the snapshot of {self._server.name}"
        self._around.reference.check_image(who, checks.batches[taking.meta.index], taking.chunks)
        self._around.on_stage(self._server, False)
        self._later(THREAD_MS, taking, self._taken)

    def _taken(self, taking: Taking) -> None:
        self._give_up(taking)
        replica = self._server.replica
        assert replica is not None
        replica.compact(Index(max(0, taking.meta.index - self._plan.margin)))
        self._server.later(THREAD_MS, self._remove_older)

    def _give_up(self, taking: Taking) -> None:
        """Or it is done."""
        taking.is_over, self._taking = True, None
        taking.exporting.close()
        if taking.writer is not None:
            taking.writer.abort()

    # -- keeping -------------------------------------------------------------------------------------------

    def named(self, meta: SnapshotMeta) -> None:
        """It has its name, durably."""
        self._server.durable.add_snapshot(meta)
        if self.newest is None or self.newest.index <= meta.index:
            self.newest = meta

    def damaged(self) -> None:
        """The newest one can't be read: it is replaced by another. NB: until then it stays where it is."""
        self.probe("snapshot found damaged")
        self.newest = None
        self.take()

    def _remove_older(self) -> None:
        """And what the log still holds of what the older of the two covers."""
        replica, durable = self._server.replica, self._server.durable
        assert replica is not None
        try:
            self.files.keep_newest(KEPT)
            kept = self.files.metas()
        except StartError:
            return  # with the next one, then
        durable.kept({path.name for path in self.files.paths()})
        self._around.on_stage(self._server, False)
        joining = [meta for meta in kept if meta.index >= self._floor]
        if len(joining) == KEPT or (joining and joining[-1].index == self._floor):
            self.drop_before(joining)

    def drop_before(self, joining: list[SnapshotMeta]) -> None:
        """The log is needed from the older one on. NB: one that a stale leader sent may be beyond what is
        applied here; the log up to there isn't final yet.
        """
        replica = self._server.replica
        assert replica is not None
        self._server.drop_before(min(joining[-1].index, replica.last_applied))
