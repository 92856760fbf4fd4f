"""Who may talk to whom: the hello each side sends first, and the reasons to refuse one.

The connector sends its hello, the listener checks it and answers with its own or closes with a code and a
reason; then the connector checks the answer in the same way. Both then speak the newest version of the
protocol that both know. Pure: both sides call ``objection``.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum

from raftkv.consensus.types import GroupId, NodeId
from raftkv.wire.frames import OLDEST_VERSION, PROTOCOL_VERSION, check_name, check_numbers
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
    STARTED_OVER = 4009  # a node that lost what it had promised under its id


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. ``cluster_id`` and ``node_id`` are ids (1-64 of ``A-Z a-z 0-9 . _ -``).

    ``incarnation`` (0 <= n < 2**63) grows with every run of the node; ``client_url`` is what it advertises.
    ``peer_address`` is where peers find it, "" where that isn't known; ``directory`` an id of its data
    directory, made with it, or "". ``versions``: the oldest and the newest of the protocol that it speaks.
    Raises ``WireError`` for what couldn't be sent.
    """

    cluster_id: str
    node_id: NodeId
    incarnation: int
    client_url: str
    groups: tuple[GroupId, ...] = (GroupId(0),)
    peer_address: str = ""
    directory: str = ""
    versions: tuple[int, int] = (OLDEST_VERSION, PROTOCOL_VERSION)

    def __post_init__(self) -> None:
        check_name(self.cluster_id)
        check_name(self.node_id)
        if self.directory:
            check_name(self.directory)
        check_numbers((self.incarnation, *self.groups, *self.versions))


@dataclass(frozen=True, slots=True)
class LastRun:
    """The latest run of a node that anybody here knows of."""

    incarnation: int = 0
    directory: str = ""  # "" where it isn't known


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


def hello_to(receiver: NodeId, identity: Identity, *, moved: bool = False) -> Hello:
    """What ``identity`` says to ``receiver``. ``moved``: its list of members has it at another address."""
    oldest, newest = identity.versions
    return Hello(
        version=oldest,
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        receiver=receiver,
        incarnation=identity.incarnation,
        groups=identity.groups,
        client_url=identity.client_url,
        max_version=newest,
        peer_address=identity.peer_address,
        moved=moved,
        directory=identity.directory,
    )


def common_version(one: tuple[int, int], other: tuple[int, int]) -> int | None:
    """The newest version of the protocol in both ranges (oldest, newest); None where there is none."""
    newest = min(one[1], other[1])
    return newest if newest >= max(one[0], other[0]) else None


def objection(
    hello: Hello, identity: Identity, welcome: Container[NodeId], last_run: LastRun = LastRun()
) -> Objection | None:
    """Why ``identity`` won't have a link with the sender of ``hello``, or None.

    ``welcome``: the known peers when listening, the one that is expected at the address when connecting.
    ``last_run``: what is known of the sender from before.
    """
    me, sender = identity.node_id, hello.node_id
    if common_version(hello.versions, identity.versions) is None:
        older = me if identity.versions < hello.versions else sender
        return Objection(
            CloseCode.VERSION,
            f"{me} speaks protocol {_range(identity.versions)}, {sender} {_range(hello.versions)}: "
            f"upgrade {older}, a release at a time",
        )
    if hello.cluster_id != identity.cluster_id:
        return Objection(
            CloseCode.WRONG_CLUSTER, f"{me} is of cluster {identity.cluster_id}, not {hello.cluster_id}"
        )
    if sender == me:
        return Objection(
            CloseCode.OWN_ID, f"{me} is this node's own id: two nodes have it, or it called itself"
        )
    if hello.receiver != me:
        return Objection(CloseCode.WRONG_NODE, f"this is {me}, not {hello.receiver}")
    if sender not in welcome:
        return Objection(CloseCode.UNKNOWN_NODE, f"{me} doesn't expect {sender} here")
    if _starts_over(hello, last_run):
        return Objection(
            CloseCode.STARTED_OVER,
            f"{sender}'s data directory was lost or replaced: it must come back under a new id "
            f"(raftkv member replace {sender} ...)",
        )
    return None


def _starts_over(hello: Hello, last_run: LastRun) -> bool:
    """Whether the sender isn't what was known under its id: it would vote again where it has voted, and count
    for entries that it lost. A fresh directory counts its runs from 1 on, and has a name of its own.
    """
    if last_run.directory and hello.directory and last_run.directory != hello.directory:
        return True
    return hello.incarnation < last_run.incarnation


def _range(versions: tuple[int, int]) -> str:
    oldest, newest = versions
    return f"{oldest}" if oldest == newest else f"{oldest}-{newest}"
