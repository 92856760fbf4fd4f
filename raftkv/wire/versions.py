"""Which version of the protocol a message takes: a peer that speaks an older one would misread it.

Version 1: a cluster whose members never change. Version 2: entries that change them, the messages that ask
for that, and snapshots that say who the members are. Version 3: the leader's lease.
Whoever adds to the protocol raises
``frames.PROTOCOL_VERSION``, and says here what takes it.
"""

from __future__ import annotations

from raftkv.consensus.messages import (
    AppendEntries,
    ChangeMembers,
    ChangeMembersReply,
    InstallSnapshot,
    LeaseGrant,
    LeaseRead,
    Message,
)
from raftkv.consensus.types import EntryKind
from raftkv.wire.frames import OLDEST_VERSION

CHANGING_MEMBERS = 2
LEASES = 3

_ENTRIES_OF_VERSION_1 = (EntryKind.NOOP, EntryKind.BATCH)


def version_of(message: Message) -> int:
    """The oldest version of the protocol that can carry ``message``."""
    if isinstance(message, ChangeMembers | ChangeMembersReply | InstallSnapshot):
        return CHANGING_MEMBERS
    if isinstance(message, LeaseGrant | LeaseRead):
        return LEASES
    if isinstance(message, AppendEntries):
        if any(entry.kind not in _ENTRIES_OF_VERSION_1 for entry in message.entries):
            return CHANGING_MEMBERS
        return OLDEST_VERSION
    return OLDEST_VERSION
