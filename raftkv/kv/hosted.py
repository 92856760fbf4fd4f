"""A state machine of somebody else's, a *guest*, replicated beside the keys in the same log.

The guest is spared what a replica asks of a machine (``machine.StateMachine``): batches, sessions, chunks. It
applies commands, and can be written down and read back. All nodes of a cluster must have the same guest: one
without it can neither apply its commands nor read its snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgpack

from raftkv.kv.machine import Applied, KvMachine
from raftkv.kv.results import Malformed
from raftkv.kv.snapshot import Export, Restore
from raftkv.kv.state import State
from raftkv.kv.txn import ReadRoom

HOSTED = 64  # an opcode: [64, command]; beyond all of our own

_MARK = "guest"
_MAX_RESULT = (1 << 63) - 1
_PIECE_BYTES = 64 << 10

GuestResult = bytes | str | int | bool | None


class Guest(Protocol):
    """Deterministic: equal commands in equal order give equal results and equal snapshots, in every process.
    So no clock, no chance, no I/O, and no order of a set. All of it runs on the node's event loop: no call
    may take long.
    """

    def apply(self, time_ms: int, command: bytes) -> GuestResult:
        """Do ``command``. ``time_ms``: the cluster's time, which never goes back. Its result goes to whoever
        proposed it, on the node it was proposed at.

        A ``ValueError`` refuses the command, which must have changed nothing then. Anything else that is
        raised stops the node, and every other one: it is a bug.
        """
        ...

    def snapshot(self) -> bytes:
        """All there is. Called between two commands, and held until it is on the disk."""
        ...

    def restore(self, data: bytes) -> None:
        """Become what ``snapshot`` wrote, whatever this one was before."""
        ...


def encode_hosted(command: bytes) -> bytes:
    return bytes(msgpack.packb((HOSTED, command)))


class HostMachine(KvMachine):
    """The keys, and ``guest``."""

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self.guest = guest
        self._now_ms = 0

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        self._now_ms = max(self._now_ms, time_ms)
        return super().apply(time_ms, data)

    def _execute_other(self, command: list[Any], room: ReadRoom) -> Any:
        match command:
            case [opcode, bytes(hosted)] if opcode == HOSTED:
                return self._execute_hosted(hosted)
            case _:
                return super()._execute_other(command, room)

    def _execute_hosted(self, command: bytes) -> GuestResult | Malformed:
        try:
            result = self.guest.apply(self._now_ms, command)
        except ValueError as error:
            return Malformed(str(error))
        if result is not None and not isinstance(result, bytes | str | int):
            raise TypeError(f"a guest's result must be bytes, str, int, bool or None, not {result!r}")
        if isinstance(result, int) and abs(result) > _MAX_RESULT:  # it couldn't be kept for its token
            raise TypeError(f"a guest's result must be an int of 64 bits at most, not {result!r}")
        return result

    def export(self) -> Export:
        return _HostExport(self)

    def restorer(self) -> Restore[KvMachine]:
        return _HostRestore(self._become, self.guest)


class _HostExport(Export):
    """The guest's chunks, and then those of the keys."""

    def __init__(self, machine: HostMachine) -> None:
        super().__init__(machine)
        try:
            self._guest = _pieces(machine.guest.snapshot(), machine._now_ms)
        except BaseException:
            super().close()
            raise

    def __next__(self) -> bytes:
        piece = next(self._guest, None)
        return super().__next__() if piece is None else piece

    def close(self) -> None:
        self._guest = iter(())
        super().close()


def _pieces(data: bytes, now_ms: int) -> Iterator[bytes]:
    """``["guest", now_ms, bytes that follow this piece, piece]``; one at least."""
    for start in range(0, max(1, len(data)), _PIECE_BYTES):
        piece = data[start : start + _PIECE_BYTES]
        yield bytes(msgpack.packb((_MARK, now_ms, len(data) - start - len(piece), piece)))


class _HostRestore(Restore[KvMachine]):
    def __init__(self, install: Callable[[State], KvMachine], guest: Guest) -> None:
        super().__init__(install)
        self._guest = guest
        self._pieces: list[bytes] = []
        self._now_ms = 0
        self._left_bytes: int | None = None  # of the guest; None: nothing has come yet

    def feed(self, chunk: bytes) -> None:
        if chunk and self._left_bytes != 0:
            self._feed_guest(chunk)
        else:
            super().feed(chunk)

    def _feed_guest(self, chunk: bytes) -> None:
        try:
            values = msgpack.unpackb(chunk)
        except (ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"not a chunk: {error}") from None
        match values:
            case [mark, int(now_ms), int(left), bytes(piece)] if mark == _MARK and left >= 0 <= now_ms:
                expected = left if self._left_bytes is None else self._left_bytes - len(piece)
                if left != expected or (left and not piece):
                    raise ValueError("a piece of the guest is missing")
                self._left_bytes, self._now_ms = left, now_ms
                self._pieces.append(piece)
            case _:
                raise ValueError("the snapshot has no guest: was it written by a node without one?")

    def finish(self) -> KvMachine:
        if self._left_bytes != 0:
            raise ValueError("the guest is not whole")
        machine = super().finish()
        assert isinstance(machine, HostMachine)
        machine._now_ms = self._now_ms
        self._guest.restore(b"".join(self._pieces))
        return machine
