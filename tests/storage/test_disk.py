"""The disk's thread: order, grouping, and what a failure means. Waits are on queues, with deadlines."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from raftkv import ports
from raftkv.consensus.types import Index
from raftkv.errors import StartError
from raftkv.storage.disk import Disk
from raftkv.storage.files import OsFiles
from tests.storage.faulty_files import FaultyFiles, Tear
from tests.storage.samples import DIRECTORY, G0, apply, entry, indexes, open_wal, write

DEADLINE_S = 10.0


class Gate(FaultyFiles):
    """Files whose sync waits for the test once ``shut``: what a slow disk does to those who queue."""

    def __init__(self) -> None:
        super().__init__()
        self.shut = False
        self.reached: SimpleQueue[None] = SimpleQueue()
        self.go: SimpleQueue[None] = SimpleQueue()

    def sync_error(self) -> int:
        if self.shut:
            self.reached.put(None)
            self.go.get(timeout=DEADLINE_S)
        return super().sync_error()


class Owner:
    """The caller's thread: runs what is posted, when the test says so."""

    def __init__(self, files: FaultyFiles, segment_bytes: int = 1 << 20, **options: int) -> None:
        self.posted: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.done: list[int] = []
        self.failures: list[BaseException] = []
        self.fsyncs: list[float] = []
        wal, _ = open_wal(files, segment_bytes=segment_bytes)
        self.disk = Disk(wal, self.posted.put, self.failures.append, on_fsync=self.fsyncs.append, **options)

    def write(self, index: int, data: bytes = b"value") -> None:
        self.disk.write(write(entry(index, data)), lambda: self.done.append(index))

    def run_one(self) -> None:
        self.posted.get(timeout=DEADLINE_S)()

    def run_rest(self) -> None:
        """After ``close``, when nothing more can come."""
        while not self.posted.empty():
            self.posted.get()()


def test_it_is_a_storage() -> None:
    owner = Owner(FaultyFiles())
    storage: ports.Storage = owner.disk
    assert storage is owner.disk
    owner.disk.close()


def test_a_write_completes_on_the_owner_s_thread_after_its_sync() -> None:
    files = Gate()
    owner = Owner(files)
    files.shut = True
    owner.write(1)
    files.reached.get(timeout=DEADLINE_S)
    with pytest.raises(Empty):
        owner.posted.get_nowait()
    files.go.put(None)
    call = owner.posted.get(timeout=DEADLINE_S)
    assert owner.done == [], "the disk's thread only posts"
    call()
    assert owner.done == [1]
    owner.disk.close()


def test_what_waits_is_one_batch_one_sync_and_one_call() -> None:
    files = Gate()
    owner = Owner(files)
    before = files.writes, files.syncs
    files.shut = True
    owner.write(1)
    files.reached.get(timeout=DEADLINE_S)
    for index in range(2, 101):
        owner.write(index)
    assert owner.disk.statistics().waiting == 99
    files.shut = False
    files.go.put(None)
    owner.run_one()
    assert owner.done == [1]
    owner.run_one()
    assert owner.done == list(range(1, 101))
    assert (files.writes - before[0], files.syncs - before[1]) == (2, 2)
    owner.disk.close()
    statistics = owner.disk.statistics()
    assert (statistics.writes, statistics.fsyncs, statistics.waiting, statistics.failed) == (100, 2, 0, False)
    assert owner.fsyncs[-1] == statistics.last_fsync_s <= statistics.slowest_fsync_s == max(owner.fsyncs)
    assert statistics.total_fsync_s == pytest.approx(sum(owner.fsyncs))
    assert statistics.bytes > 100 * 64


def test_a_group_is_bounded() -> None:
    files = Gate()
    owner = Owner(files, max_group_bytes=1000)
    before = files.syncs
    files.shut = True
    owner.write(1)
    files.reached.get(timeout=DEADLINE_S)
    for index in range(2, 12):
        owner.write(index, bytes(400))
    files.shut = False
    files.go.put(None)
    owner.disk.close()
    owner.run_rest()
    assert owner.done == list(range(1, 12))
    assert files.syncs - before == 1 + 4  # 3 + 3 + 3 + 1 of 400 bytes


def test_a_write_of_nothing_completes_in_order_without_a_sync() -> None:
    files = FaultyFiles()
    owner = Owner(files)
    syncs = files.syncs
    owner.disk.write(write(), lambda: owner.done.append(0))
    owner.run_one()
    assert (owner.done, files.syncs) == ([0], syncs)
    owner.disk.close()


def test_close_finishes_what_is_queued_and_takes_nothing_more() -> None:
    files = FaultyFiles()
    owner = Owner(files)
    for index in range(1, 50):
        owner.write(index)
    owner.disk.close()
    owner.disk.close()
    owner.write(50)
    owner.run_rest()
    assert owner.done == list(range(1, 50))
    files.crash(Tear.LOST)
    assert indexes(open_wal(files)[1]) == list(range(1, 50))


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("fail_sync_at", errno.EIO, "fdatasync failed: Input/output error"),
        ("fail_write_at", errno.ENOSPC, "writing failed: No space left on device"),
    ],
)
@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("tear", Tear)
def test_after_the_first_failure_nothing_is_acknowledged(
    fault: str, code: int, message: str, nth: int, tear: Tear
) -> None:
    files = FaultyFiles(seed=nth)
    owner = Owner(files)
    setattr(files, fault, (files.writes if fault == "fail_write_at" else files.syncs) + nth)
    files.write_errno = files.sync_errno = code
    for index in range(1, nth):
        owner.write(index)
        owner.run_one()
    for index in range(nth, nth + 4):
        owner.write(index)
    while not owner.failures:
        owner.run_one()
    syncs = files.syncs
    owner.write(nth + 4)
    owner.disk.close()
    owner.run_rest()
    assert owner.done == list(range(1, nth)), "what was acknowledged before, and no more"
    (failure,) = owner.failures
    assert isinstance(failure, StartError)
    assert failure.exit_code == 74
    assert message in str(failure)
    assert files.syncs == syncs, "a failed fsync is not tried again"
    assert owner.disk.statistics().failed
    files.crash(tear)
    _, recovered = open_wal(files)
    model = apply({}, [write(entry(index)) for index in range(1, nth)])
    kept = {
        group: state._replace(entries=state.entries[: nth - 1]) for group, state in recovered.groups.items()
    }
    assert {group: value for group, value in kept.items() if value[1]} == model


def test_segments_go_in_their_turn() -> None:
    """... after what was queued before is durable, and before what was queued after is written."""
    files = Gate()
    owner = Owner(files, segment_bytes=600)
    for index in range(1, 4):
        owner.write(index, bytes(300))
        owner.run_one()
    files.shut = True
    owner.write(4, bytes(300))
    files.reached.get(timeout=DEADLINE_S)
    owner.write(5)
    owner.disk.drop_before(Index(5), lambda: owner.done.append(-5))
    owner.write(6)
    assert len(files.names(DIRECTORY)) > 3
    files.shut = False
    files.go.put(None)
    owner.disk.close()
    owner.run_rest()
    assert owner.done == [1, 2, 3, 4, 5, -5, 6]
    assert owner.disk.statistics().writes == 6
    recovered = open_wal(files, segment_bytes=600)[1]
    assert (recovered.groups[G0].boundary.index, indexes(recovered)) == (4, [5, 6])


def test_a_removal_that_fails_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    files = Gate()
    owner = Owner(files, segment_bytes=600)
    for index in range(1, 4):
        owner.write(index, bytes(300))
        owner.run_one()
    monkeypatch.setattr(files, "unlink", fail)
    owner.disk.drop_before(Index(2), lambda: owner.done.append(-2))
    owner.run_one()
    (failure,) = owner.failures
    assert "removing a segment failed" in str(failure)
    owner.disk.drop_before(Index(2), lambda: owner.done.append(-2))
    owner.disk.close()
    owner.run_rest()
    assert owner.done == [1, 2, 3]


def test_a_failure_is_posted_once_whatever_waits_behind_it() -> None:
    files = Gate()
    owner = Owner(files, max_group_bytes=1)
    files.shut = True
    owner.write(1)
    files.reached.get(timeout=DEADLINE_S)
    for index in range(2, 6):
        owner.write(index)
    files.shut = False
    files.fail_sync_at = files.syncs + 1
    files.go.put(None)
    owner.disk.close()
    owner.run_rest()
    assert (owner.done, len(owner.failures)) == ([], 1)


def test_a_broken_invariant_is_a_failure_too() -> None:
    owner = Owner(FaultyFiles())
    owner.write(7)
    owner.run_one()
    owner.disk.close()
    assert owner.done == []
    assert [getattr(failure, "exit_code", None) for failure in owner.failures] == [70]


def test_a_closed_loop_is_no_failure() -> None:
    """At the end of a process the loop may be gone before the last write is durable."""

    def closed(call: Callable[[], object]) -> None:
        raise RuntimeError("Event loop is closed")

    files = FaultyFiles()
    wal, _ = open_wal(files)
    failures: list[BaseException] = []
    disk = Disk(wal, closed, failures.append)
    disk.write(write(entry(1)), lambda: None)
    disk.close()
    files.crash(Tear.LOST)
    assert indexes(open_wal(files)[1]) == [1]
    assert failures == []


async def test_with_asyncio_and_the_real_file_system(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    wal, _ = open_wal(OsFiles(), tmp_path)
    failed: asyncio.Future[None] = loop.create_future()
    disk = Disk(wal, loop.call_soon_threadsafe, failed.set_exception)
    done: list[int] = []
    all_done = asyncio.Event()
    threads = set()

    def complete(index: int) -> None:
        threads.add(threading.current_thread())
        done.append(index)
        if index == 300:
            all_done.set()

    for index in range(1, 301):
        disk.write(write(entry(index)), lambda index=index: complete(index))  # type: ignore[misc]
        if index % 7 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(all_done.wait(), DEADLINE_S)
    disk.close()
    assert done == list(range(1, 301))
    assert threads == {threading.current_thread()}
    assert not failed.done()
    wal, recovered = open_wal(OsFiles(), tmp_path)
    wal.close()
    assert indexes(recovered) == list(range(1, 301))
