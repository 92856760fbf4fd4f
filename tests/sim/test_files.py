"""The simulated file system: what it keeps, loses and tears."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from raftkv.sim.files import PowerCut, SimFile, SimFiles, Tear
from raftkv.storage.files import LockHeldError

DIRECTORY = Path("/data")
NAME = DIRECTORY / "wal-1.log"


def written(files: SimFiles, data: bytes = b"durable") -> SimFile:
    file = files.create(NAME)
    file.append(data)
    file.sync()
    files.sync_directory(DIRECTORY)
    return file


@pytest.mark.parametrize("tear", list(Tear))
@pytest.mark.parametrize("seed", range(20))
def test_what_was_synced_stays(tear: Tear, seed: int) -> None:
    files = SimFiles(Random(seed))
    file = written(files)
    file.append(b"x" * 2000)
    files.crash(tear)
    assert files.read(NAME).startswith(b"durable")


def test_unsynced_bytes_are_lost_kept_or_torn() -> None:
    left = set()
    for seed in range(40):
        for tear in Tear:
            files = SimFiles(Random(seed))
            written(files).append(b"x" * 2000)
            files.crash(tear)
            left.add(files.read(NAME)[7:])
    assert {b"", b"x" * 2000} < left
    assert any(b"\0" in tail and b"x" in tail for tail in left)


def test_an_unsynced_name_may_be_lost() -> None:
    found = set()
    for seed in range(20):
        files = SimFiles(Random(seed))
        files.create(NAME).sync()
        files.crash(Tear.KEPT)
        found.add(bool(files.names(DIRECTORY)))
    assert found == {False, True}


def test_a_killed_process_loses_nothing_and_its_handles() -> None:
    files = SimFiles(Random(0))
    file = written(files)
    file.append(b"!")
    files.kill()
    assert files.read(NAME) == b"durable!"
    with pytest.raises(AssertionError):
        file.append(b"?")


def test_after_a_failed_sync_the_page_cache_lies() -> None:
    files = SimFiles(Random(0))
    file = written(files)
    file.append(b"!")
    files.fail_syncs = 1
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()  # says nothing, writes nothing
    assert files.read(NAME) == b"durable!"
    files.crash(Tear.KEPT)
    assert files.read(NAME) == b"durable"


def test_a_full_disk_takes_a_part() -> None:
    files = SimFiles(Random(1))
    file = written(files)
    files.is_full = True
    with pytest.raises(OSError, match="No space"):
        file.append(b"x" * 100)
    assert 7 <= len(files.read(NAME)) <= 107


def test_a_failed_read_fails_once() -> None:
    files = SimFiles(Random(1))
    written(files)
    files.fail_reads = 1
    with pytest.raises(OSError, match="Input/output"):
        files.read(NAME)
    assert files.read(NAME) == b"durable"


def test_the_fuse_cuts_the_power_once() -> None:
    files = SimFiles(Random(0))
    file = written(files)
    files.fuse = 1
    file.append(b"1")
    with pytest.raises(PowerCut):
        file.append(b"2")
    assert files.fuse == -1


def test_a_lock_is_held_until_it_is_released_or_its_process_ends() -> None:
    files = SimFiles(Random(0))
    lock = files.lock(NAME)
    with pytest.raises(LockHeldError):
        files.lock(NAME)
    lock.release()
    files.lock(NAME)
    files.kill()
    files.lock(NAME)


def test_what_is_put_there_stays_as_it_is_read() -> None:
    files = SimFiles(Random(0))
    written(files).append(b"not synced")
    files.put(NAME, b"another")
    files.crash(Tear.LOST)
    assert files.read(NAME) == b"another"
    file = files.open(NAME)
    assert (file.read(3), file.read(9), file.read(1)) == (b"ano", b"ther", b"")
    with pytest.raises(FileNotFoundError):
        files.open(DIRECTORY / "none")


def test_one_bit_flips_in_what_was_synced() -> None:
    files = SimFiles(Random(0))
    written(files).append(b"not synced")
    files.flip_bit()
    data = files.read(NAME)
    differing = [a ^ b for a, b in zip(data, b"durablenot synced", strict=True) if a != b]
    assert len(differing) == 1
    assert differing[0].bit_count() == 1
    assert data.endswith(b"not synced")
