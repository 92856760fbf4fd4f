"""A snapshot's way from one node to another, beside the frames: a piece, its answer, the next piece.

Pieces cross the network's cuts, clogs and broken connections; nobody is told of one that is lost, so each
side gives up when it hears nothing for a while. The receiver has the file durable before its node is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import NodeId, SnapshotMeta
from raftkv.errors import StartError
from raftkv.kv.machine import Restoring
from raftkv.sim.disk import THREAD_MS
from raftkv.storage.snapshot import DamagedSnapshotError, SnapshotReader, SnapshotWriter

if TYPE_CHECKING:
    from raftkv.sim.server import SimServer, Surroundings
    from raftkv.sim.snapshots import Snapshots


class Sending:
    """The sender's side: one life of one node, one follower."""

    def __init__(
        self, server: SimServer, around: Surroundings, snapshots: Snapshots, peer: NodeId, meta: SnapshotMeta
    ) -> None:
        assert server.replica is not None
        self.sender = server.name
        self.term = server.replica.node.current_term
        self.meta = meta
        self.extra = b""  # its membership, once it is open
        self.pieces = 0  # that were answered
        self.is_second_hand = server.durable.has_installed
        self._peer = peer
        self._server = server
        self._life = server.life
        self._around = around
        self._snapshots = snapshots
        self._connection = around.network.links[self.sender, peer].connection
        self._reader: SnapshotReader | None = None
        self._heard = True
        self._is_over = False

    def begin(self) -> None:
        if not self._is_over:
            world = self._around.world
            world.note(
                f"{self.sender}@{self.term} → {self._peer} snapshot {self.meta.index}@{self.meta.term}"
            )
            self._around.on_stage(self._server, True)  # a bit that flips now is in what will be read
            self._read(self._open)
            self._watch()

    def _open(self) -> None:
        self._reader = self._snapshots.files.open(self.meta)
        self.extra = self._reader.extra
        self._send(lambda receiver: receiver.offered(self))

    def _read(self, step: Callable[[], None]) -> None:
        try:
            step()
        except DamagedSnapshotError:
            self._end()
            self._snapshots.damaged()
        except StartError:
            self._end()

    def _next(self) -> None:
        assert self._reader is not None
        if self._is_over:
            return
        chunk = next(self._reader, None)
        self._around.on_stage(self._server, True)
        if chunk is None:
            self._send(lambda receiver: receiver.ended(self))
        else:
            self._send(lambda receiver: receiver.chunk(self, chunk))

    def _send(self, call: Callable[[Receiver], None]) -> None:
        peer = self._around.servers[self._peer]
        then = partial(peer.in_process, lambda: call(peer.snapshots.receiver))
        slow_ms = self._around.world.random.expovariate(1 / self._around.plan.snapshots.stream_ms)
        self._around.network.carry((self.sender, self._peer), self._connection, slow_ms, then)

    def answer(self, goes_on: bool) -> None:
        """Called by the receiver, to be heard here when it has come."""
        then = partial(self._server.in_life, self._life, partial(self._answered, goes_on))
        self._around.network.carry((self._peer, self.sender), self._connection, 0.0, then)

    def _answered(self, goes_on: bool) -> None:
        self._heard = True
        self.pieces += 1
        if not self._is_over:
            if goes_on:
                self._read(self._next)
            else:
                self._end()

    def _watch(self) -> None:
        if self._is_over:
            return
        if not self._heard:
            if self.pieces:
                self._snapshots.probe("stream cut in the middle")
            self._end()
            return
        self._heard = False
        self._server.later(self._around.plan.snapshots.patience_ms, self._watch)

    def give_up(self) -> None:
        """Another takes its place."""
        self._is_over = True
        if self._reader is not None:
            self._reader.close()

    def _end(self) -> None:
        self.give_up()
        replica = self._server.replica
        assert replica is not None
        if self._snapshots.sendings.get(self._peer) is self:
            del self._snapshots.sendings[self._peer]
            replica.snapshot_ended(self._peer)


@dataclass(slots=True)
class Receiving:
    stream: Sending
    writer: SnapshotWriter
    restoring: Restoring
    heard: bool = True
    is_whole: bool = False  # all pieces are here
    is_over: bool = False


class Receiver:
    """The receiver's side: one life of one node; one stream at a time, the latest."""

    def __init__(self, server: SimServer, around: Surroundings, snapshots: Snapshots) -> None:
        self._server = server
        self._around = around
        self._snapshots = snapshots
        self._receiving: Receiving | None = None

    def offered(self, stream: Sending) -> None:
        replica, probe = self._server.replica, self._snapshots.probe
        assert replica is not None
        if stream.term < replica.node.current_term:
            probe("stale-term stream refused")
            stream.answer(goes_on=False)
        elif stream.meta.index <= replica.last_applied:
            # Its bytes are not needed; but its sender must hear that, or it would send another for ever.
            probe("snapshot not needed")
            self.install(stream, replica.restorer())
            stream.answer(goes_on=False)
        else:
            self._give_up()
            try:
                writer = self._snapshots.files.begin(stream.meta, stream.extra)
            except StartError:
                probe("snapshot not written")
                stream.answer(goes_on=False)
                return
            self._receiving = Receiving(stream, writer, replica.restorer())
            self._watch(self._receiving)
            stream.answer(goes_on=True)

    def chunk(self, stream: Sending, chunk: bytes) -> None:
        receiving = self._receiving
        if receiving is None or receiving.stream is not stream:
            stream.answer(goes_on=False)
            return
        receiving.heard = True
        self._around.on_stage(self._server, True)
        try:
            receiving.writer.append(chunk)
        except StartError:
            self._refuse(receiving)
            return
        receiving.restoring.feed(chunk)
        stream.answer(goes_on=True)

    def ended(self, stream: Sending) -> None:
        receiving = self._receiving
        if receiving is not None and receiving.stream is stream:
            receiving.is_whole = True
            self._around.on_stage(self._server, True)
            self._server.later(self._server.sync_ms(), partial(self.finish, receiving))

    def finish(self, receiving: Receiving) -> None:
        """The file first."""
        if receiving.is_over:
            return
        meta = receiving.stream.meta
        try:
            receiving.writer.finish()
        except StartError:
            self._refuse(receiving)
            return
        self._snapshots.named(meta)
        self._around.world.note(f"{self._server.name} got a snapshot {meta.index}@{meta.term}")
        self._around.on_stage(self._server, True)
        self._server.later(THREAD_MS, partial(self._finished, receiving))

    def _finished(self, receiving: Receiving) -> None:
        if self._receiving is receiving:
            self._receiving = None
            self.install(receiving.stream, receiving.restoring)
            receiving.stream.answer(goes_on=False)

    def install(self, stream: Sending, restoring: Restoring) -> None:
        """Then the node, which takes it or not."""
        replica = self._server.replica
        assert replica is not None
        node, meta = replica.node, stream.meta
        if stream.term < node.current_term:
            self._snapshots.probe("stale-term stream refused")
        elif meta.index > node.commit_index and node.log.matches(meta.index, meta.term):
            self._snapshots.probe("snapshot agreed with the log")
        elif meta.index > node.commit_index and stream.is_second_hand:
            self._snapshots.probe("snapshot of second generation")
        replica.clock(self._server.clock_ms)
        membership = decode_membership(stream.extra)
        replica.install(stream.sender, stream.term, meta, membership, restoring)
        self._server.wake()

    def _refuse(self, receiving: Receiving) -> None:
        self._snapshots.probe("snapshot not written")
        self._give_up()
        receiving.stream.answer(goes_on=False)

    def _watch(self, receiving: Receiving) -> None:
        if receiving.is_over or receiving.is_whole:
            return
        if not receiving.heard:
            self._give_up()
            return
        receiving.heard = False
        self._server.later(self._around.plan.snapshots.patience_ms, partial(self._watch, receiving))

    def _give_up(self) -> None:
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.is_over = True
            receiving.writer.abort()
