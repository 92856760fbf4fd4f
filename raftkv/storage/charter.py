"""A data directory's charter: which cluster it belongs to, and how that began for this node.

A small file, ``CHARTER``, written once and never changed: the options a node is started with may change, and
the log may lose its beginning to a snapshot, but who founded the cluster stays true. A node that joined has
no founders, but remembers whom it was told of: there it looks for its cluster until its log names the
members. A directory of an older release has none until it is used the first time.

Rules: JSON, with a checksum; what isn't whole is damage (65). Durable before the node says who it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.storage.files import Files
from raftkv.storage.segment import EXIT_UNUSABLE, TEMPORARY_SUFFIX, Owner, damaged, newer

CHARTER_NAME = "CHARTER"
_VERSION = 1
_DIRECTORY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Charter:
    owner: Owner
    directory: str  # 16 hexadecimal digits, drawn for this directory: another one of the same node has others
    founders: Mapping[NodeId, str]  # peer addresses by id; empty for a node that joined
    contacts: Mapping[NodeId, str]  # the members that one that joined was told of

    def __post_init__(self) -> None:
        if _DIRECTORY.fullmatch(self.directory) is None:
            raise ValueError(f"a directory's id is 16 hexadecimal digits, got {self.directory!r}")


def new_charter(
    files: Files, owner: Owner, *, founders: Mapping[NodeId, str], contacts: Mapping[NodeId, str]
) -> Charter:
    return Charter(owner, files.random_bytes(8).hex(), dict(founders), dict(contacts))


def read_charter(files: Files, directory: Path) -> Charter | None:
    """None where there is none. Raises ``StartError``: 65 for damage, 73 where it can't be read, 78 for one
    of a newer release.
    """
    path = directory / CHARTER_NAME
    try:
        if CHARTER_NAME not in files.names(directory):
            return None
        document = json.loads(files.read(path))
        fields = document["charter"]
        checksum = document["crc32c"]
    except OSError as error:
        raise StartError(f"{path}: can't be read: {error.strerror or error}", EXIT_UNUSABLE) from error
    except (ValueError, KeyError, TypeError):
        raise damaged(path, 0, "this is no charter") from None
    if checksum != google_crc32c.value(_canonical(fields)):
        raise damaged(path, 0, "the charter doesn't match its checksum")
    if fields.get("version") != _VERSION:
        raise newer(path, 0, f"a charter of version {fields.get('version')}")
    try:
        owner = Owner(fields["cluster_id"], NodeId(fields["node_id"]))
        return Charter(owner, fields["directory"], dict(fields["founders"]), dict(fields["contacts"]))
    except (ValueError, KeyError, TypeError):
        raise damaged(path, 0, "the charter's fields are impossible") from None


def write_charter(files: Files, directory: Path, charter: Charter) -> None:
    """Durable when this returns. Raises ``StartError`` (73)."""
    fields = {
        "version": _VERSION,
        "cluster_id": charter.owner.cluster_id,
        "node_id": charter.owner.node_id,
        **{name: value for name, value in asdict(charter).items() if name != "owner"},
    }
    document = {"charter": fields, "crc32c": google_crc32c.value(_canonical(fields))}
    path = directory / CHARTER_NAME
    temporary = path.with_name(CHARTER_NAME + TEMPORARY_SUFFIX)
    try:
        file = files.create(temporary)
        try:
            file.append(json.dumps(document, indent=1).encode() + b"\n")
            file.sync()
        finally:
            file.close()
        files.rename(temporary, path)
        files.sync_directory(directory)
    except OSError as error:
        raise StartError(f"{path}: can't be written: {error.strerror or error}", EXIT_UNUSABLE) from error


def _canonical(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
