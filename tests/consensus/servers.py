"""A server under test, and a snapshot between two of them, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from raftkv.consensus import Envelope, Node
from raftkv.consensus.ready import ChangeReply, ReadGrant
from raftkv.consensus.types import NOBODY, Entry, Membership, NodeId
from tests.consensus.disk import Disk


@dataclass(frozen=True)
class Stream:
    """A snapshot on its way."""

    envelope: Envelope  # what the receiver hears when it has all of it
    covered: list[Entry]


@dataclass
class Server:
    """One server: its disk survives a crash, its node and what it applied don't."""

    node_id: NodeId
    disk: Disk
    node: Node | None = None
    applied: list[Entry] = field(default_factory=list)
    grants: list[ReadGrant] = field(default_factory=list)
    membership: Membership = NOBODY  # what its snapshot says, or that it was founded with
    replies: list[ChangeReply] = field(default_factory=list)  # to changes of members
