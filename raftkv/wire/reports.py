"""The two frames that aren't envelopes: the hello that opens a link, and a node's status report.

Both carry one map with text keys, so that a later version can add to it: a reader takes the keys it knows and
passes over the others. Must not know: whether a hello is welcome (``transport/hello.py``), or what a status
says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raftkv.consensus.types import GroupId, NodeId
from raftkv.wire.errors import WireError
from raftkv.wire.frames import FrameKind, check_name, check_numbers, open_frame, pack_frame, show

MAX_CLIENT_URL_CHARS = 2048
MAX_ADDRESS_CHARS = 300  # a host name has 253 at most
MAX_GROUPS = 1024
MAX_HELLO_BYTES = 64 << 10  # with keys of later versions
MAX_STATUS_BYTES = 64 << 10
MAX_STATUS_DEPTH = 8

is_address = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@?#]+):[0-9]{1,5}").fullmatch


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks, and whom it means to speak to.

    It speaks the protocol's versions from ``version`` to ``max_version``. ``incarnation`` differs between two
    runs of one node; ``client_url`` is what the sender advertises. ``peer_address`` is where it listens for
    peers, "" where it doesn't say, and ``moved`` whether that isn't where its own list of members has it.
    ``directory`` names its data directory, "" where it doesn't say.
    """

    version: int
    cluster_id: str
    node_id: NodeId
    receiver: NodeId
    incarnation: int
    groups: tuple[GroupId, ...]
    client_url: str
    max_version: int = 0  # 0: as ``version``; an older release names no other
    peer_address: str = ""
    moved: bool = False
    directory: str = ""

    @property
    def versions(self) -> tuple[int, int]:
        """The oldest and the newest it speaks."""
        return self.version, max(self.version, self.max_version)


def encode_hello(hello: Hello) -> bytes:
    fields = {
        "version": hello.version,
        "cluster": hello.cluster_id,
        "node": hello.node_id,
        "receiver": hello.receiver,
        "incarnation": hello.incarnation,
        "groups": hello.groups,
        "client_url": hello.client_url,
        "max_version": hello.max_version,
        "peer_address": hello.peer_address,
        "moved": hello.moved,
        "directory": hello.directory,
    }
    return pack_frame(FrameKind.HELLO, [fields])


def decode_hello(data: bytes) -> Hello:
    """Raises ``WireError``."""
    if len(data) > MAX_HELLO_BYTES:  # first of all: it comes from whoever can reach the port
        raise WireError(f"a hello of {len(data)} bytes is over the limit of {MAX_HELLO_BYTES}")
    fields = _only_map(data, FrameKind.HELLO)
    try:
        version, cluster_id, node_id = fields["version"], fields["cluster"], fields["node"]
        receiver, incarnation = fields["receiver"], fields["incarnation"]
        groups, client_url = fields["groups"], fields["client_url"]
    except KeyError as exc:
        raise WireError(f"a hello without {exc}") from None
    if type(groups) is not list or len(groups) > MAX_GROUPS:
        raise WireError(f"a hello's groups are an array of up to {MAX_GROUPS}")
    check_numbers((version, incarnation, *groups))
    for name in (cluster_id, node_id, receiver):
        check_name(name)
    if type(client_url) is not str or len(client_url) > MAX_CLIENT_URL_CHARS or not client_url.isprintable():
        raise WireError(f"{show(client_url)} is not a client URL of up to {MAX_CLIENT_URL_CHARS} characters")
    return Hello(
        version, cluster_id, node_id, receiver, incarnation, tuple(groups), client_url, **_later(fields)
    )


def _later(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a hello of version 1 doesn't say yet."""
    max_version, moved = fields.get("max_version", 0), fields.get("moved", False)
    address, directory = fields.get("peer_address", ""), fields.get("directory", "")
    check_numbers((max_version,))
    if type(moved) is not bool:
        raise WireError(f"{show(moved)} doesn't say whether the sender has moved")
    if type(address) is not str or len(address) > MAX_ADDRESS_CHARS or (address and not is_address(address)):
        raise WireError(f"{show(address)} is not a host:port of up to {MAX_ADDRESS_CHARS} characters")
    if directory != "":
        check_name(directory)
    return {"max_version": max_version, "peer_address": address, "moved": moved, "directory": directory}


def encode_status(status: Mapping[str, Any]) -> bytes:
    """``status`` holds JSON types only. Raises ``WireError`` where it doesn't, or is over a limit."""
    plain = dict(status)
    _check_json(plain, MAX_STATUS_DEPTH)
    frame = pack_frame(FrameKind.STATUS, [plain])
    if len(frame) > MAX_STATUS_BYTES:
        raise WireError(f"a status of {len(frame)} bytes is over the limit of {MAX_STATUS_BYTES}")
    return frame


def decode_status(data: bytes) -> dict[str, Any]:
    """JSON types only, so that it can be shown as it is. Raises ``WireError``."""
    if len(data) > MAX_STATUS_BYTES:
        raise WireError(f"a status of {len(data)} bytes is over the limit of {MAX_STATUS_BYTES}")
    fields = _only_map(data, FrameKind.STATUS)
    _check_json(fields, MAX_STATUS_DEPTH)
    return fields


def _only_map(data: bytes, expected: FrameKind) -> dict[str, Any]:
    kind, items = open_frame(data)
    if kind is not expected:
        raise WireError(f"expected a {expected.name.lower()}, got a frame of kind {kind.name.lower()}")
    if len(items) != 1 or type(items[0]) is not dict:
        raise WireError(f"a {expected.name.lower()} is one map")
    fields: dict[str, Any] = items[0]
    return fields


def _check_json(value: Any, depth: int) -> None:
    if depth < 0:
        raise WireError(f"a status is nested more than {MAX_STATUS_DEPTH} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            if type(key) is not str:
                raise WireError(f"{show(key)} is not a text key")
            _check_json(inner, depth - 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_json(inner, depth - 1)
    elif not isinstance(value, str | int | float | None):
        raise WireError(f"{show(value)} is not a JSON value")
