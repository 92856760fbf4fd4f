"""Files on the real file system: how large they are, and what a reader finds in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raftkv.storage.files import OsFiles

AHEAD_BYTES = 64 << 10

ahead = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="files grow as they are filled here")


@ahead
def test_a_file_is_larger_than_what_was_appended_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = OsFiles().create(path, ahead_bytes=AHEAD_BYTES)
    content = b""
    sizes = set()
    for i in range(100):
        content += (data := bytes([i + 1]) * 3000)
        file.append(data)
        file.sync()
        assert path.read_bytes().rstrip(b"\0") == content
        sizes.add(path.stat().st_size)
    assert len(sizes) <= len(content) // AHEAD_BYTES + 1, "it grows by leaps"
    assert all(size <= len(content) + AHEAD_BYTES for size in sizes)
    file.close()
    assert path.read_bytes() == content


@ahead
def test_what_is_larger_than_a_leap_is_appended_whole(tmp_path: Path) -> None:
    file = OsFiles().create(tmp_path / "log", ahead_bytes=100)
    for _ in range(3):
        file.append(b"x" * 1000)
    file.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 3000


def test_without_leaps_a_file_is_what_was_appended(tmp_path: Path) -> None:
    file = OsFiles().create(tmp_path / "log")
    file.append(b"abc")
    assert (tmp_path / "log").read_bytes() == b"abc"


@ahead
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_it_can_t_leap_it_grows_as_it_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file = OsFiles().create(tmp_path / "log", ahead_bytes=AHEAD_BYTES)
    for _ in range(3):
        file.append(b"abc")
        file.sync()
    assert (tmp_path / "log").read_bytes() == b"abc" * 3
    file.close()
    assert (tmp_path / "log").read_bytes() == b"abc" * 3
