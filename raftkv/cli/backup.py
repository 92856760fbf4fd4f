"""``raftkv backup``: the whole store as one file, while the cluster goes on.

The file has its name only when it was read back from the disk and found whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import click

from raftkv.cli.options import cluster_of, cluster_options
from raftkv.cli.output import Failure, print_json, reported
from raftkv.cli.progress import Advance, bar
from raftkv.client import Download, Endpoint, NoReply, Request

STALL_S = 30.0  # how long a node may send nothing in the middle
_STDOUT = "-"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "stale"]),
    default="linearizable",
    show_default=True,
    help="stale: what the node that is asked has, without a quorum.",
)
@cluster_options
def backup(
    *,
    file: str,
    force: bool,
    consistency: str,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """Write all keys to FILE, with their revisions, as they are at one moment. Writes go on meanwhile.

    FILE "-" is standard output. The file is checked to its end before it gets its name, and can be given to
    raftkv restore. --timeout is for the beginning of the answer; then a node may pause for 30 s.
    """
    if file != _STDOUT:
        _check_free(Path(file), force=force)
    elif sys.stdout.isatty():
        raise click.UsageError("a backup is no text for a terminal: give a FILE, or use a pipe")
    with reported():
        request = Request("GET", "/v1/snapshot", (("consistency", consistency),))
        download = cluster_of(endpoints, timeout_s).download(request, STALL_S)
    try:
        if file == _STDOUT:
            done = _receive(download, Path("the backup"), sys.stdout.buffer, output)
            sys.stdout.buffer.flush()
        else:
            done = _to_file(download, Path(file), output)
    finally:
        download.close()
    shown = {**done, "file": None if file == _STDOUT else file, "endpoint": str(download.endpoint)}
    if output == "json" and file != _STDOUT:
        print_json(shown)
        return
    where = "standard output" if file == _STDOUT else file
    what = f"{done['keys']:,} keys at revision {done['revision']}, {done['bytes']:,} bytes"
    click.echo(f"{where}: {what}, from {download.endpoint}", err=file == _STDOUT)


def _check_free(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise Failure(f"{path} is there already: give another name, or --force to replace it")
    if not path.parent.is_dir():
        raise Failure(f"{path.parent} is no directory")


def _to_file(download: Download, path: Path, output: str) -> dict[str, Any]:
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with _disk_errors(temporary), _private(temporary) as file:
            done = _receive(download, path, file, output)
            file.flush()
            os.fsync(file.fileno())
        _check_again(temporary, done["sha256"])
        with _disk_errors(path):
            temporary.replace(path)
            _sync_directory(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return done


def _receive(download: Download, path: Path, sink: IO[bytes], output: str) -> dict[str, Any]:
    """Copy the backup to ``sink`` and check it on the way; what it is."""
    from raftkv.errors import StartError  # noqa: PLC0415 - no other command needs the storage
    from raftkv.kv.snapshot import Survey  # noqa: PLC0415
    from raftkv.storage.backup import check_backup  # noqa: PLC0415

    survey = Survey()
    announced = download.headers.get("raftkv-keys", "")
    total = int(announced) if announced.isdecimal() else None
    try:
        with bar("keys", total, output) as advance:
            summary = check_backup(path, _Copied(download, sink), _counting(survey, advance))
        survey.finish()
    except NoReply as error:
        raise Failure(f"{download.endpoint}: {error}; no backup was made. Try again") from error
    except (StartError, ValueError) as error:
        raise Failure(f"{download.endpoint} sent no whole backup: {error}") from error
    return {
        "keys": survey.keys,
        "revision": survey.revision,
        "index": summary.meta.index,
        "term": summary.meta.term,
        "cluster_id": summary.source.cluster_id,
        "node": summary.source.node_id,
        "bytes": summary.size_bytes,
        "sha256": summary.digest,
    }


def _counting(survey: Any, advance: Advance) -> Callable[[bytes], None]:
    def feed(chunk: bytes) -> None:
        before = survey.keys
        survey.feed(chunk)
        advance(survey.keys - before)

    return feed


class _Copied:
    """A download whose bytes go to ``sink`` as they are read (``storage.files.ReadFile``)."""

    def __init__(self, download: Download, sink: IO[bytes]) -> None:
        self._download = download
        self._sink = sink

    def read(self, size_bytes: int) -> bytes:
        data = self._download.read(size_bytes)
        try:
            self._sink.write(data)
        except OSError as error:
            raise Failure(f"writing the backup failed: {error.strerror or error}") from error
        return data

    def close(self) -> None:
        self._download.close()


def _check_again(path: Path, digest: str) -> None:
    """Whether the disk has what was sent."""
    from raftkv.errors import StartError  # noqa: PLC0415
    from raftkv.storage.backup import check_backup, open_backup  # noqa: PLC0415
    from raftkv.storage.files import OsFiles  # noqa: PLC0415

    try:
        summary = check_backup(path, open_backup(OsFiles(), path), lambda _: None)
    except StartError as error:
        raise Failure(f"what was written can't be read back: {error}") from error
    if summary.digest != digest:
        raise Failure(f"{path}: what was read back isn't what was written")


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that only its owner may read: all values are in it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        yield file


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
