"""Who may talk to whom: the hello each side sends first, and the reasons to refuse one.

The connector sends its hello, the listener checks it and answers with its own or closes with a code and a
reason; then the connector checks the answer in the same way. Pure: both sides call ``objection``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum

from raftkv.consensus.types import GroupId, NodeId
from raftkv.wire.frames import PROTOCOL_VERSION, check_name, check_numbers
from raftkv.wire.reports import Hello

LINK_PATH = "/raft/v1/link"

# A WebSocket close frame has 125 bytes, of which the code takes two.
_MAX_REASON_BYTES = 123


class CloseCode(IntEnum):
    """Why a link is closed, on the wire. Never renumber."""

    STOPPING = 1001  # RFC 6455, "going away"
    MALFORMED = 4000  # a frame that can't be read, or one that doesn't belong on a link
    VERSION = 4001
    WRONG_CLUSTER = 4002
    OWN_ID = 4003
    WRONG_NODE = 4004
    UNKNOWN_NODE = 4005
    FOREIGN_ENVELOPE = 4006  # from or to another node than the link's two
    NO_HELLO = 4007  # in time
    FAULT = 4008  # this side's own


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. ``cluster_id`` and ``node_id`` are ids (1-64 of ``A-Z a-z 0-9 . _ -``).

    ``incarnation`` (0 <= n < 2**63) differs between two runs of the node; ``client_url`` is what it
    advertises. Raises ``WireError`` for what couldn't be sent.
    """

    cluster_id: str
    node_id: NodeId
    incarnation: int
    client_url: str
    groups: tuple[GroupId, ...] = (GroupId(0),)

    def __post_init__(self) -> None:
        check_name(self.cluster_id)
        check_name(self.node_id)
        check_numbers((self.incarnation, *self.groups))


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a link isn't wanted. ``reason`` is one line, meant for the operator of the *refused* node."""

    code: CloseCode
    reason: str

    @property
    def message(self) -> bytes:
        """``reason`` as it fits in a close frame."""
        return self.reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore").encode()


class Refused(Exception):
    """A link that isn't to be: one side objected."""

    def __init__(self, objection: Objection, *, by_peer: bool) -> None:
        super().__init__(objection.reason)
        self.objection = objection
        self.by_peer = by_peer


def hello_to(receiver: NodeId, identity: Identity) -> Hello:
    """What ``identity`` says to ``receiver``."""
    return Hello(
        version=PROTOCOL_VERSION,
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        receiver=receiver,
        incarnation=identity.incarnation,
        groups=identity.groups,
        client_url=identity.client_url,
    )


def objection(hello: Hello, identity: Identity, welcome: Container[NodeId]) -> Objection | None:
    """Why ``identity`` won't have a link with the sender of ``hello``, or None.

    ``welcome``: the known peers when listening, the one that is expected at the address when connecting.
    """
    me = identity.node_id
    if hello.version != PROTOCOL_VERSION:
        return Objection(
            CloseCode.VERSION, f"{me} speaks protocol version {PROTOCOL_VERSION}, not {hello.version}"
        )
    if hello.cluster_id != identity.cluster_id:
        return Objection(
            CloseCode.WRONG_CLUSTER, f"{me} is of cluster {identity.cluster_id}, not {hello.cluster_id}"
        )
    if hello.node_id == me:
        return Objection(
            CloseCode.OWN_ID, f"{me} is this node's own id: two nodes have it, or it called itself"
        )
    if hello.receiver != me:
        return Objection(CloseCode.WRONG_NODE, f"this is {me}, not {hello.receiver}")
    if hello.node_id not in welcome:
        return Objection(CloseCode.UNKNOWN_NODE, f"{me} doesn't expect {hello.node_id} here")
    return None
