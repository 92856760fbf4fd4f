"""The data directory of a node that founds a new cluster from a backup.

It holds a *token*, a charter, a snapshot, and a log that begins after it. The token is part of the new
cluster's id (``config.Config.cluster_token``), so that neither the old cluster's members are let in, even
under the same names and addresses, nor a node that was restored from something else.

Rules:

- The token is durable first, the log is begun last. A token without a log is a restore that didn't come to
  its end; no node starts from that, for it would start empty.
- The log is as that of a node which installed the snapshot: its boundary is the snapshot's last entry, its
  term that entry's, and no vote was given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from raftkv.consensus.membership import encode_membership
from raftkv.consensus.types import GroupId, HardState, Membership, SnapshotMeta, Write
from raftkv.errors import StartError
from raftkv.storage.charter import Charter, write_charter
from raftkv.storage.datadir import LOCK_NAME
from raftkv.storage.files import Files
from raftkv.storage.segment import (
    EXIT_DAMAGED,
    EXIT_UNUSABLE,
    TEMPORARY_SUFFIX,
    damaged,
    disk_failed,
    segment_paths,
)
from raftkv.storage.snapshots import SnapshotFiles
from raftkv.storage.wal import Wal

TOKEN_NAME = "CLUSTER-TOKEN"

_IGNORED = frozenset({LOCK_NAME, "lost+found"})  # in a directory that counts as empty
_GROUP = GroupId(0)


def founding_token(digest: str, bump_revision: int, text: str) -> str:
    """The same for all who restore the same file in the same way, and for nobody else: 64 hexadecimal digits.

    ``digest``: of the file. ``text``: what tells two restores of one file apart.
    """
    parts = f"raftkv restore 1\n{digest}\n{bump_revision}\n{text}"
    return hashlib.sha256(parts.encode()).hexdigest()


def read_token(files: Files, directory: Path) -> str:
    """The directory's token; "" if it wasn't restored from a backup.

    Raises ``StartError``: 65 where it is damaged or the restore didn't come to its end, 73 or 74 where the
    disk fails.
    """
    path = directory / TOKEN_NAME
    try:
        names = files.names(directory)
        if TOKEN_NAME not in names:
            return ""
        token = files.read(path).decode("ascii", "replace").strip()
    except OSError as error:
        raise disk_failed(path, "reading it", error) from error
    if re.fullmatch(r"[0-9a-f]{64}", token) is None:
        raise damaged(path, 0, "this is no token of a restored cluster")
    if not segment_paths(directory, names):
        raise StartError(
            f"{directory}: raftkv restore did not come to its end here; empty the directory and run it again",
            EXIT_DAMAGED,
        )
    return token


def check_empty(files: Files, directory: Path) -> None:
    """``directory`` must exist. Raises ``StartError`` (73) where it holds anything."""
    try:
        names = [name for name in files.names(directory) if name not in _IGNORED]
    except OSError as error:
        raise disk_failed(directory, "looking into it", error) from error
    if names:
        raise StartError(
            f"{directory}: this directory isn't empty (it has {names[0]!r}); a new cluster begins in an "
            "empty one. Nothing was changed",
            EXIT_UNUSABLE,
        )


def found_from_backup(
    files: Files,
    directory: Path,
    charter: Charter,
    token: str,
    *,
    meta: SnapshotMeta,
    chunks: Iterable[bytes],
) -> None:
    """Fill ``directory`` (empty, locked by the caller) so that the charter's node starts from ``chunks``,
    which end at ``meta``, with the charter's founders as members. When it returns, all is durable.

    Raises ``StartError`` (73, 74) where the disk refuses, and what ``chunks`` raises; no node starts from
    what is left then.
    """
    _write_token(files, directory, token)
    write_charter(files, directory, charter)
    owner, addresses = charter.owner, {str(node): address for node, address in charter.founders.items()}
    members = encode_membership(Membership.of(*addresses, addresses=addresses))
    snapshot = SnapshotFiles(files, directory, owner).begin(meta, members)
    try:
        for chunk in chunks:
            snapshot.append(chunk)
        snapshot.finish()
    except Exception:
        snapshot.abort()
        raise
    wal, _ = Wal.open(files, directory, owner.cluster_id, owner.node_id)
    try:
        wal.commit([Write(_GROUP, HardState(meta.term, None), (), meta)])
    finally:
        wal.close()


def _write_token(files: Files, directory: Path, token: str) -> None:
    path = directory / TOKEN_NAME
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        file = files.create(temporary)
        try:
            file.append(f"{token}\n".encode())
            file.sync()
        finally:
            file.close()
        files.rename(temporary, path)
        files.sync_directory(directory)
    except OSError as error:
        raise disk_failed(temporary, "writing it", error) from error
