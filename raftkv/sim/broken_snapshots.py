"""Broken twins of taking, installing and starting from snapshots, for ``ablation.py``.

Those of the driver's duties break the simulator's own driver: the server's has the same to do, and what is
tried here is whether a mistake in it would be seen.
"""

from __future__ import annotations

from typing import Any

from raftkv.consensus.core import Core
from raftkv.consensus.messages import AppendEntriesReply, InstallSnapshot
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.snapshots import Snapshots as Boundaries
from raftkv.consensus.types import Index, NodeId, SnapshotMeta
from raftkv.kv.image import Image
from raftkv.kv.machine import Exporting
from raftkv.kv.session import Sessions
from raftkv.replica import Replica
from raftkv.sim.snapshots import Snapshots
from raftkv.sim.streams import Receiver, Receiving, Sending
from raftkv.storage.snapshots import SnapshotFiles

Patch = tuple[Any, str, Any]


def installed_before_durable() -> Patch:
    """The node is told when all pieces are here; the file gets durable a sync later."""
    original = Receiver.ended

    def ended(self: Receiver, stream: Sending) -> None:
        original(self, stream)
        receiving = self._receiving
        if receiving is not None and receiving.stream is stream:
            self.install(stream, receiving.restoring)

    return Receiver, "ended", ended


def older_one_cannot_be_used() -> Patch:
    """Segments go that only the newest snapshot covers."""
    original = Snapshots.drop_before

    def drop_before(self: Snapshots, joining: list[SnapshotMeta]) -> None:
        original(self, joining[:1])

    return Snapshots, "drop_before", drop_before


def only_the_newest_kept() -> Patch:
    original = SnapshotFiles.keep_newest

    def keep_newest(self: SnapshotFiles, number: int) -> int:
        return original(self, 1)

    return SnapshotFiles, "keep_newest", keep_newest


def sessions_left_out() -> Patch:
    def rows(self: Sessions) -> list[list[Any]]:
        return []

    return Sessions, "rows", rows


def later_writes_exported() -> Patch:
    """No copy on write."""

    def keep(self: Image, key: bytes, row: bytes) -> None:
        pass

    return Image, "keep", keep


def suffix_truncated() -> Patch:
    """A snapshot that the log agrees with cuts what follows it (L12)."""

    def on_install(self: Boundaries, sender: NodeId, message: InstallSnapshot) -> None:
        core, meta = self._core, message.meta
        if meta.index > core.commit_index:
            core.install(meta, message.membership)
        core.promise(sender, AppendEntriesReply(meta.index))

    return Boundaries, "on_install", on_install


def machine_not_swapped() -> Patch:
    original = Replica.apply

    def apply(self: Replica, ready: Ready) -> Any:
        self._restoring = dict.fromkeys(self._restoring, _Nothing())
        return original(self, ready)

    return Replica, "apply", apply


class _Nothing:
    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self) -> Any:
        pass


def applied_ignored() -> Patch:
    """A start applies what the log holds, whatever the snapshot had of it."""
    original = Node.__init__

    def init(self: Node, *positional: Any, **named: Any) -> None:
        original(self, *positional, **{**named, "applied": None})

    return Node, "__init__", init


def compacted_beyond() -> Patch:
    """All that is applied is forgotten, not only what the snapshot covers."""

    def compact(self: Node, index: Index) -> None:
        self._snapshots.compact(self._handed_index, self._handed_index)

    return Node, "compact", compact


def named_too_late() -> Patch:
    """A snapshot is said to cover what is committed, and holds what is applied."""

    def capture(self: Replica) -> tuple[SnapshotMeta, Exporting]:
        return self._node.log.meta_at(self._node.commit_index), self._machine.export()

    return Replica, "capture", capture


def stale_one_used() -> Patch:
    """What came and wasn't installed is kept, and used for the next that is."""
    original = Replica.apply

    def apply(self: Replica, ready: Ready) -> Any:
        came = self._restoring
        if ready.installed is not None and came:
            self._restoring = {ready.installed: next(iter(came.values()))}
        answers = original(self, ready)
        if ready.installed is None:
            self._restoring = came
        return answers

    return Replica, "apply", apply


def damage_not_noticed() -> Patch:
    """A start takes the newest snapshot for whole without having read it."""

    def check_path(self: SnapshotFiles, path: Any) -> SnapshotMeta:
        with self.read(path) as reader:
            return reader.meta

    return SnapshotFiles, "check_path", check_path


def boundary_not_written() -> Patch:
    """An installed snapshot replaces the log in memory only."""
    original = Core.take_write

    def take_write(self: Core) -> Any:
        kept, self.installed = self.installed, None
        taken = original(self)
        self.installed = kept
        return taken

    return Core, "take_write", take_write


def pieces_of_two() -> Patch:
    """A receiver takes any stream's pieces for those of the one that it has begun."""
    original = Receiver.chunk

    def chunk(self: Receiver, stream: Sending, chunk: bytes) -> None:
        receiving: Receiving | None = self._receiving
        if receiving is not None:
            receiving.stream = stream
        original(self, stream, chunk)

    return Receiver, "chunk", chunk
