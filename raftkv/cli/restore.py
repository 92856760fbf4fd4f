"""``raftkv restore``: the data directory of a new cluster's founding member, from a backup; and
``raftkv snapshot verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftkv.cli.options import cluster_of, endpoints_option, output_option, timeout_option
from raftkv.cli.output import Failure, document_of, print_json, reported
from raftkv.cli.progress import bar
from raftkv.client import Endpoint, Request
from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.types import NodeId
from raftkv.errors import StartError

if TYPE_CHECKING:
    from raftkv.consensus.types import SnapshotMeta
    from raftkv.kv.snapshot import Survey
    from raftkv.storage.backup import BackupSummary
    from raftkv.storage.files import Files

BUMP_REVISION = 1_000_000_000

_BACKUP = click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))


@click.command()
@_BACKUP
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the node will keep its log: empty.",
)
@click.option("--id", "node_id", required=True, help="The node's id, one of those in --cluster.")
@click.option("--cluster", required=True, help="The new cluster's founding members, as for raftkv serve.")
@click.option("--cluster-name", default="", help="As for raftkv serve.")
@click.option(
    "--cluster-token",
    default="",
    metavar="TEXT",
    help="Any text, another one each time one FILE is restored to the same members.",
)
@click.option(
    "--bump-revision",
    type=click.IntRange(min=0),
    default=BUMP_REVISION,
    show_default=True,
    metavar="N",
    help="Go on so many revisions later: more than were written since the backup.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, and write nothing.")
@output_option
def restore(
    *,
    file: Path,
    data_dir: Path,
    node_id: str,
    cluster: str,
    cluster_name: str,
    cluster_token: str,
    bump_revision: int,
    dry_run: bool,
    output: str,
) -> None:
    """Make --data-dir that of a new cluster's node, with all keys of FILE, which raftkv backup wrote.

    Run it once for each member in --cluster, with the same FILE and the same options but --id and --data-dir;
    then start them with raftkv serve and the same --cluster. It is a new cluster: the old one's nodes are
    refused, even under the same names and addresses.
    """
    from raftkv.kv.row import MAX_REVISION  # noqa: PLC0415 - no other command needs these
    from raftkv.storage.founding import founding_token  # noqa: PLC0415

    with refusals():
        nowhere = Address("127.0.0.1", 1)  # where it listens makes no difference here
        members = parse_cluster(cluster)
        config = Config(NodeId(node_id), data_dir, nowhere, nowhere, members, cluster_name=cluster_name)
        _check_directory(data_dir)
        summary, survey = _checked(file, output)
        if survey.revision + bump_revision > MAX_REVISION:
            raise Failure(f"revision {survey.revision} can't be raised by {bump_revision}")
        token = founding_token(summary.digest, bump_revision, cluster_token)
        config = replace(config, cluster_token=token)
        if not dry_run:
            _found(config, file, summary, bump_revision, output)
    shown = {
        "node": node_id,
        "data_dir": str(data_dir),
        "cluster_id": config.cluster_id,
        "revision": survey.revision + bump_revision,
        "dry_run": dry_run,
        "backup": _document(file, summary, survey),
    }
    if output == "json":
        print_json(shown)
        return
    verb = "would start" if dry_run else "starts"
    click.echo(
        f"{node_id} of cluster {config.cluster_id} {verb} with {survey.keys:,} keys, and goes on "
        f"after revision {shown['revision']} (the backup ends at {survey.revision})"
    )


def _check_directory(path: Path) -> None:
    from raftkv.storage.files import OsFiles  # noqa: PLC0415
    from raftkv.storage.founding import check_empty  # noqa: PLC0415

    if path.is_dir():
        check_empty(OsFiles(), path)


def _found(config: Config, file: Path, summary: BackupSummary, bump_revision: int, output: str) -> None:
    from raftkv.kv.snapshot import founding_chunks  # noqa: PLC0415
    from raftkv.storage.backup import backup_chunks  # noqa: PLC0415
    from raftkv.storage.files import OsFiles  # noqa: PLC0415

    files = OsFiles()
    with bar("bytes written", summary.size_bytes, output) as advance:
        chunks = _counted(backup_chunks(files, file, summary.digest), advance)
        found(files, config, summary.meta, founding_chunks(chunks, bump_revision))


def found(files: Files, config: Config, meta: SnapshotMeta, chunks: Iterable[bytes]) -> None:
    """Make ``config``'s data directory, which must be empty, that of a new cluster's founder that starts from
    ``chunks``, which end at ``meta``. Raises ``StartError``.
    """
    from raftkv.storage.charter import new_charter  # noqa: PLC0415
    from raftkv.storage.datadir import DataDir  # noqa: PLC0415
    from raftkv.storage.founding import check_empty, found_from_backup  # noqa: PLC0415
    from raftkv.storage.segment import Owner  # noqa: PLC0415

    data_dir = DataDir.open(files, config.data_dir)
    try:
        check_empty(files, data_dir.path)
        owner = Owner(config.cluster_id, config.node_id)
        charter = new_charter(files, owner, founders=config.founders, contacts={})
        found_from_backup(files, data_dir.path, charter, config.cluster_token, meta=meta, chunks=chunks)
    finally:
        data_dir.close()


def _counted(chunks: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))


@click.group()
def snapshot() -> None:
    """Take a snapshot; look into snapshots and backups."""


@snapshot.command()
@endpoints_option
@timeout_option("1m", "How long it may take; then it goes on, and this exits 3.")
@output_option
def take(endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Have the first endpoint write a snapshot to its disk now, as it else does by itself."""
    with reported():
        reply = cluster_of(endpoints[:1], timeout_s).write(Request("POST", "/v1/snapshot", (), b""))
    done = document_of(reply)
    if output == "json":
        print_json(done)
    else:
        click.echo(f"up to entry {done.get('index')} of term {done.get('term')}, {done.get('bytes'):,} bytes")


@snapshot.command()
@_BACKUP
@output_option
def verify(file: Path, output: str) -> None:
    """Read FILE to its end, and say what it holds: a backup, or a snapshot in a node's --data-dir.

    Exits 1 if it isn't whole, naming the byte.
    """
    with refusals():
        document = _document(file, *_checked(file, output))
    if output == "json":
        print_json(document)
        return
    click.echo(f"{document['keys']:,} keys at revision {document['revision']}")
    click.echo(f"up to entry {document['index']} of term {document['term']}")
    click.echo(f"from node {document['node']} of cluster {document['cluster_id']}")
    click.echo(f"{document['bytes']:,} bytes, format {document['format']}, SHA-256 {document['sha256']}")
    click.secho("whole", fg="green")


def _checked(file: Path, output: str) -> tuple[BackupSummary, Survey]:
    from raftkv.kv.snapshot import Survey  # noqa: PLC0415
    from raftkv.storage.backup import BadBackup, check_backup, open_backup  # noqa: PLC0415
    from raftkv.storage.files import OsFiles  # noqa: PLC0415

    survey = Survey()
    with bar("bytes checked", file.stat().st_size, output) as advance:

        def feed(chunk: bytes) -> None:
            survey.feed(chunk)
            advance(len(chunk))

        summary = check_backup(file, open_backup(OsFiles(), file), feed)
        try:
            survey.finish()
        except ValueError as error:
            raise BadBackup(file, summary.size_bytes, str(error)) from error
    return summary, survey


def _document(file: Path, summary: BackupSummary, survey: Survey) -> dict[str, Any]:
    from raftkv.storage.snapshot_bytes import VERSION  # noqa: PLC0415

    return {
        "file": str(file),
        "format": VERSION,  # it would not have been read if it had another
        "keys": survey.keys,
        "revision": survey.revision,
        "index": summary.meta.index,
        "term": summary.meta.term,
        "time_ms": summary.meta.time_ms,
        "cluster_id": summary.source.cluster_id,
        "node": summary.source.node_id,
        "bytes": summary.size_bytes,
        "sha256": summary.digest,
    }


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except StartError as error:
        raise Failure(str(error)) from error
