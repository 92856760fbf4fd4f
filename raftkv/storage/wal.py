"""The write-ahead log: appends batches to the last segment, begins new ones, recovers at ``open``.

Rules:

- One ``append`` is one batch: its records and a COMMIT record in one write. One ``sync`` makes it durable.
- The first failure is the last: after it the log takes nothing more. A failed fsync is never repeated; only
  a restart, which reads and rewrites the last segment, may go on.
- What was read at ``open`` is rewritten before it is promised to anyone. After a failed fsync and a restart
  of the process the page cache may show bytes that the disk doesn't have (ATC'20), so the last segment is
  copied to a new file, synced and renamed. That also drops a torn tail without truncating a file in place.
- Segments are written in order, and a new one is begun only when all before it is durable. They go in order
  too, one by one, each durably gone before the next.

It knows nothing of threads or clocks: ``disk.Disk`` calls it from its thread, a simulator from wherever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from raftkv.consensus.types import NO_SNAPSHOT, Entry, GroupId, HardState, Index, NodeId, SnapshotMeta, Write
from raftkv.errors import StartError
from raftkv.storage.files import AppendFile, Files
from raftkv.storage.record import (
    Commit,
    encode_boot,
    encode_boundary,
    encode_commit,
    encode_entry,
    encode_hard_state,
    encode_position,
    sparse_sectors,
)
from raftkv.storage.recovery import NO_HARD_STATE, Extent, Recovery, recover
from raftkv.storage.segment import (
    EXIT_INVARIANT,
    HEADER_BYTES,
    TEMPORARY_SUFFIX,
    Owner,
    SegmentHeader,
    disk_failed,
    encode_header,
    temporary_names,
)
from raftkv.storage.track import Track

SEGMENT_BYTES = 16 << 20
AHEAD_BYTES = 1 << 20


class GroupState(NamedTuple):
    """What a group had made durable."""

    hard_state: HardState = NO_HARD_STATE
    boundary: SnapshotMeta = NO_SNAPSHOT  # the entry before the first of ``entries``
    entries: tuple[Entry, ...] = ()  # consecutive


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was durable when the log was opened."""

    incarnation: int  # how often this node has started, this start included: 1 for the first
    groups: dict[GroupId, GroupState]
    dropped_tail_bytes: int  # of a batch that was never acknowledged, torn by a crash
    dropped_tail: str  # where and why it was taken for torn, for the log; "" if there was none
    segments: int  # that were read; 0 for a new directory
    batches: int
    total_bytes: int  # of all segments, without the tail


class Wal:
    """An open log. Not thread-safe: one thread at a time."""

    def __init__(
        self, files: Files, directory: Path, owner: Owner, segment_bytes: int, recovery: Recovery
    ) -> None:
        replay = recovery.replay
        self._files = files
        self._directory = directory
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._incarnation = replay.incarnation + 1
        self._hard_states = {group: r.hard_state for group, r in replay.groups.items()}
        self._tracks = {g: Track(r.boundary, r.entries, r.floor) for g, r in replay.groups.items()}
        self._extents = recovery.extents.copy()  # of all segments but the last, which is still being filled
        self._extent = self._extents.pop() if self._extents else None
        self._next_batch = recovery.last.next_batch if recovery.last else 1
        self._path = directory
        self._header: SegmentHeader | None = None
        self._file: AppendFile | None = None  # None: closed, or failed
        self._size_bytes = 0
        self._is_dirty = False  # something was appended and not synced

    @staticmethod
    def open(
        files: Files, directory: Path, cluster_id: str, node_id: NodeId, *, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[Wal, Recovered]:
        """Recover what ``directory`` (it must exist, and be locked by the caller) holds, and go on from it.

        When this returns, everything in ``Recovered`` and the incarnation itself are durable. Raises
        ``StartError``: 65 for damage, 73 or 74 where the disk refuses, 78 for another node's directory.

        NB: it knows no snapshots. A log that doesn't begin at the start of time is for ``start`` to open.
        """
        owner = Owner(cluster_id, node_id)
        return Wal.go_on(files, directory, owner, recover(files, directory, owner), segment_bytes)

    @staticmethod
    def go_on(
        files: Files, directory: Path, owner: Owner, recovery: Recovery, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[Wal, Recovered]:
        """The second half of ``open``: go on from what ``recover`` has just read. Raises as ``open`` does."""
        wal = Wal(files, directory, owner, segment_bytes, recovery)
        try:
            # Only now, when all is known to be sound: refusing to start must change nothing.
            for name in temporary_names(files.names(directory)):
                files.unlink(directory / name)
        except OSError as error:
            raise disk_failed(directory, "removing a temporary file", error) from error
        if recovery.last is None:
            wal._begin_segment()
        else:
            wal._rewrite(recovery)
        return wal, wal._recovered(recovery)

    def _recovered(self, recovery: Recovery) -> Recovered:
        last = recovery.last
        torn = last.torn if last else None
        groups = {
            group: GroupState(r.hard_state, r.boundary, tuple(r.entries))
            for group, r in sorted(recovery.replay.groups.items())
        }
        return Recovered(
            incarnation=self._incarnation,
            groups=groups,
            dropped_tail_bytes=last.torn_bytes if last else 0,
            dropped_tail=f"{last.path}: {torn}" if last and torn else "",
            segments=recovery.replay.segments,
            batches=recovery.replay.batches,
            total_bytes=recovery.total_bytes,
        )

    @property
    def path(self) -> Path:
        """The segment that is written now."""
        return self._path

    def commit(self, writes: Sequence[Write]) -> None:
        """Make ``writes`` durable, all in one batch, in order. Raises as ``append`` and ``sync`` do."""
        if self.append(writes):
            self.sync()

    def append(self, writes: Sequence[Write]) -> int:
        """Write ``writes`` as one batch; the number of its bytes, 0 if there was nothing to write.

        NB: nothing of it is durable before ``sync``. Raises ``StartError``: 70 for entries that leave a gap
        or replace what is final (nothing of the batch is written then), 74 where the disk fails; either is
        final.
        """
        self._open_file()
        try:
            if self._is_dirty:
                self.sync()  # a torn batch before a whole one would look like damage (scan.py, rule 1)
            if self._size_bytes >= self._segment_bytes:
                self.close()
                self._begin_segment()
            batch = self._encode(self._checked(writes))
        except BaseException:
            self.close()
            raise
        if batch:
            self._append(batch)
        return len(batch)

    def sync(self) -> None:
        """Make everything appended durable. Raises ``StartError`` (74), which is final."""
        file = self._open_file()
        try:
            file.sync()
        except OSError as error:
            self.close()
            raise disk_failed(self._path, "fdatasync", error) from error
        self._is_dirty = False

    def drop_before(self, index: Index) -> int:
        """Delete the oldest segments that hold the log only up to ``index``, and of group 0 alone; how many.

        Entries up to there are final from here on. NB: a snapshot that covers them must be durable before,
        and the one to fall back on too: pass what the *older* of the kept snapshots covers, less a margin for
        slow followers. Raises ``StartError`` (74), which is final.
        """
        self._open_file()
        if self._is_dirty:
            self.sync()  # what replaces an entry of a segment that goes must not be lost after it
        self._track(GroupId(0)).settle(index)
        dropped = 0
        while self._extents and self._may_go(self._extents[0], index):
            path = self._extents.pop(0).path
            try:
                # One by one: a segment missing in the middle would be damage.
                self._files.unlink(path)
                self._files.sync_directory(self._directory)
            except OSError as error:
                self.close()
                raise disk_failed(path, "removing a segment", error) from error
            dropped += 1
        return dropped

    def _may_go(self, extent: Extent, index: Index) -> bool:
        following = self._extents[1] if len(self._extents) > 1 else self._extent
        assert following is not None
        position = following.position
        return position is not None and position.index <= index and not extent.has_others

    def close(self) -> None:
        """Idempotent. What was appended and not synced may or may not be there afterwards."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open_file(self) -> AppendFile:
        if self._file is None:
            raise StartError(f"{self._path}: the log is closed, or failed before", EXIT_INVARIANT)
        return self._file

    def _checked(self, writes: Sequence[Write]) -> list[Write]:
        """What is to be written of them. Every entry must follow or replace one that is there and not final.

        A boundary at an entry that is there takes nothing away, and isn't written: once the segment with that
        entry is gone, recovery couldn't tell it from one that begins the log anew.
        """
        checked: list[Write] = []
        for write in writes:
            track = self._track(write.group)
            boundary, was_there = write.boundary, False
            if boundary is not None:
                was_there = track.term_at(boundary.index) == boundary.term
                if not track.begin_after(boundary):
                    raise self._broken(f"a boundary at {boundary.index}@{boundary.term}", write.group)
            for entry in write.entries:
                if not track.put(entry):
                    raise self._broken(f"entry {entry.index}", write.group)
            checked.append(replace(write, boundary=None) if was_there else write)
        return checked

    def _track(self, group: GroupId) -> Track:
        track = self._tracks.get(group)
        if track is None:
            track = self._tracks[group] = Track(NO_SNAPSHOT)
        return track

    def _broken(self, what: str, group: GroupId) -> StartError:
        return StartError(
            f"{self._path}: broken invariant: {what} of group {group} would follow entry "
            f"{self._track(group).last.index}; nothing of its batch was written",
            EXIT_INVARIANT,
        )

    def _encode(self, writes: Sequence[Write]) -> bytes:
        salt = self._salt
        records: list[bytes] = []
        for write in writes:
            if write.hard_state is not None:
                self._hard_states[write.group] = write.hard_state
                records.append(encode_hard_state(salt, write.group, write.hard_state))
            if write.boundary is not None:
                records.append(encode_boundary(salt, write.group, write.boundary))
            if write.group and (write.boundary is not None or write.entries):
                self._segment.has_others = True
            records += [encode_entry(salt, write.group, entry) for entry in write.entries]
        return self._batch(records, self._size_bytes) if records else b""

    @property
    def _segment(self) -> Extent:
        assert self._extent is not None
        return self._extent

    @property
    def _salt(self) -> int:
        assert self._header is not None
        return self._header.salt

    def _batch(self, records: list[bytes], offset: int) -> bytes:
        """``records`` and their COMMIT, as they will stand at ``offset``. Takes the next batch number."""
        body = b"".join(records)
        # NB: a COMMIT is never in a sparse sector, so counting without it counts the same.
        commit = Commit(self._next_batch, len(records), sparse_sectors(body, offset))
        self._next_batch += 1
        return body + encode_commit(self._salt, commit)

    def _append(self, batch: bytes) -> None:
        file = self._open_file()
        try:
            file.append(batch)
        except OSError as error:
            self.close()
            raise disk_failed(self._path, "writing", error) from error
        self._size_bytes += len(batch)
        self._is_dirty = True

    def _begin_segment(self) -> None:
        """A new segment with its first batch: what recovery would need if the older ones were gone."""
        number = self._header.number + 1 if self._header else 1
        log = self._track(GroupId(0))
        if self._extent is not None:
            self._extents.append(self._extent)
        first_index = log.last.index + 1
        salt = int.from_bytes(self._files.random_bytes(4), "little")
        self._header = SegmentHeader(self._owner, number, first_index, self._next_batch, salt)
        self._path = self._directory / self._header.name
        records = [encode_boot(salt, self._incarnation)]
        records += [encode_hard_state(salt, g, state) for g, state in sorted(self._hard_states.items())]
        lasts = {group: track.last for group, track in sorted(self._tracks.items())}
        records += [encode_position(salt, group, last) for group, last in lasts.items() if last.index]
        self._extent = Extent(self._path, log.last, has_others=False)
        self._replace(encode_header(self._header) + self._batch(records, HEADER_BYTES))

    def _rewrite(self, recovery: Recovery) -> None:
        """The last segment again, without its torn tail, in a new file, and this start's incarnation."""
        last = recovery.last
        assert last is not None
        self._header = last.header
        self._path = last.path
        valid = last.data[: last.valid_bytes]
        self._replace(valid + self._batch([encode_boot(self._salt, self._incarnation)], len(valid)))

    def _replace(self, content: bytes) -> None:
        """Make ``content`` the file at ``_path``, all or nothing, durable; go on appending to it."""
        temporary = self._path.with_name(self._path.name + TEMPORARY_SUFFIX)
        try:
            self._file = self._files.create(temporary, ahead_bytes=AHEAD_BYTES)
            self._file.append(content)
            self._file.sync()
            self._files.rename(temporary, self._path)
            self._files.sync_directory(self._directory)
        except OSError as error:
            self.close()
            raise disk_failed(temporary, "writing a new segment", error) from error
        self._size_bytes = len(content)
