"""Runs a node with a planted bug: ``python -m tests.nemesis.planted NAME serve ...``.

A nemesis that finds none of them is worth nothing. The product has no switch for any: functions are replaced
by their broken twins before the node starts, as in ``raftkv.sim.ablation``, which has most of them.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from unittest import mock

from raftkv.cli import main as command_line
from raftkv.kv.lease import Leases
from raftkv.kv.places import Place
from raftkv.server import queues
from raftkv.server.driver import Driver
from raftkv.server.revisions import RevisionWaiters
from raftkv.sim.ablation import ABLATIONS
from raftkv.storage.files import OsAppendFile

UNSYNCED_S = 5.0

# Those of the simulator that live in what a real node runs.
ABLATED = {
    "reads-without-round": "ReadIndex without the round",
    "reads-before-applied": "read answered before it is applied",
    "duplicates-applied": "duplicates applied again",
    "unknown-as-not-applied": "unknown told as not applied",
    "votes-without-comparing-logs": "vote without comparing logs",
    "tokens-forgotten": "a token is applied each time",
    "transactions-in-parts": "a revision for each part of a transaction",
    "watches-leave-out": "a resumed watch leaves one revision out",
    "watches-repeat": "a resumed watch tells of a revision again",
    "leases-run-ahead": "cluster time runs ahead of all clocks",
    "leases-not-renewed": "a renewed lease ends as if it were not",
}


@contextmanager
def reads_without_readindex() -> Iterator[None]:
    """Any node answers linearizable reads at once, from the state that it has."""

    def barrier(self: Driver, timeout_ms: float, *, by_lease: bool = False) -> asyncio.Future[None]:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answered.set_result(None)
        return answered

    with mock.patch.object(Driver, "barrier", barrier):
        yield


@contextmanager
def acknowledge_before_fsync() -> Iterator[None]:
    """What was appended counts as durable at once, and comes to the disk ``UNSYNCED_S`` later, or never: kill
    -9 takes it along, as a loss of power does with what isn't synced. A file's first bytes are spared.
    """
    append, close = OsAppendFile.append, OsAppendFile.close
    kept: dict[OsAppendFile, list[bytes]] = {}
    begun: set[OsAppendFile] = set()
    lock = threading.Lock()

    def flush(file: OsAppendFile) -> None:
        with lock, suppress(OSError):  # a full disk: nobody is told, either
            for data in kept.pop(file, []):
                append(file, data)

    def keep(self: OsAppendFile, data: bytes) -> None:
        with lock:
            if self not in begun:
                begun.add(self)
                append(self, data)
                return
            if self in kept:
                kept[self].append(data)
                return
            kept[self] = [data]
        timer = threading.Timer(UNSYNCED_S, flush, (self,))
        timer.daemon = True
        timer.start()

    def flush_and_close(self: OsAppendFile) -> None:
        flush(self)
        close(self)

    with (
        mock.patch.object(OsAppendFile, "append", keep),
        mock.patch.object(OsAppendFile, "sync", return_value=None),
        mock.patch.object(OsAppendFile, "close", flush_and_close),
    ):
        yield


@contextmanager
def reads_without_a_vote() -> Iterator[None]:
    """A node that doesn't vote (it waits to be added, learns, or was removed) takes its reads for confirmed.
    Only a change of members makes such nodes.
    """
    barrier = Driver.barrier

    def confirmed(self: Driver, timeout_ms: float, *, by_lease: bool = False) -> asyncio.Future[None]:
        node = self._replica.node
        if node.node_id in node.membership.electorate:
            return barrier(self, timeout_ms, by_lease=by_lease)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answered.set_result(None)
        return answered

    with mock.patch.object(Driver, "barrier", confirmed):
        yield


@contextmanager
def reads_by_no_lease() -> Iterator[None]:
    """Any node answers reads by lease at once, as if it had one."""
    barrier = Driver.barrier

    def confirmed(self: Driver, timeout_ms: float, *, by_lease: bool = False) -> asyncio.Future[None]:
        if not by_lease:
            return barrier(self, timeout_ms)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answered.set_result(None)
        return answered

    with mock.patch.object(Driver, "barrier", confirmed):
        yield


def bounds_not_kept() -> AbstractContextManager[object]:
    """A node takes its state for new, however old it is."""
    return mock.patch.object(Driver, "vouched_age_ms", return_value=0.0)


@contextmanager
def sessions_not_awaited() -> Iterator[None]:
    """A node takes any revision for one that it has."""

    async def reached(self: RevisionWaiters, revision: int, timeout_ms: float) -> None:
        pass

    with mock.patch.object(RevisionWaiters, "reached", reached):
        yield


@contextmanager
def locks_for_all() -> Iterator[None]:
    """Nobody sees who is before it in the queue."""
    look = queues._Waiter._look

    def look_at_own(self: queues._Waiter) -> tuple[Place, Place | None]:
        return look(self)[0], None

    with mock.patch.object(queues._Waiter, "_look", look_at_own):
        yield


def leases_without_end() -> AbstractContextManager[object]:
    """Time passes, and no lease ends."""
    return mock.patch.object(Leases, "take_due", return_value=[])


OWN = {
    "leases-without-end": leases_without_end,
    "reads-by-no-lease": reads_by_no_lease,
    "bounds-not-kept": bounds_not_kept,
    "sessions-not-awaited": sessions_not_awaited,
    "locks-for-all": locks_for_all,
    "reads-without-readindex": reads_without_readindex,
    "ack-before-fsync": acknowledge_before_fsync,
    "reads-without-a-vote": reads_without_a_vote,
}
NAMES = (*OWN, *ABLATED)


def planted(name: str) -> AbstractContextManager[object]:
    """The bug, as long as the context is open. Raises KeyError."""
    if name in OWN:
        return OWN[name]()
    return next(each for each in ABLATIONS if each.name == ABLATED[name]).applied()


if __name__ == "__main__":
    with planted(sys.argv.pop(1)):
        command_line()
