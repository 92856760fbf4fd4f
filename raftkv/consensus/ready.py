"""The one bundle that comes out of the core after a turn; all I/O is done by whoever holds it."""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.consensus.messages import ChangeMembersReply, Envelope
from raftkv.consensus.types import Entry, Index, Mark, Membership, NodeId, SnapshotMeta, Term, Write


@dataclass(frozen=True, slots=True)
class ReadGrant:
    """Reads registered under ``read_id`` may be answered once ``index`` is applied here (thesis 6.4)."""

    read_id: int
    index: Index


@dataclass(frozen=True, slots=True)
class ChangeReply:
    """The answer to ``Node.change_members``, from a leader of ``term``."""

    term: Term
    reply: ChangeMembersReply


@dataclass(frozen=True, slots=True)
class Ready:
    """What a turn led to. The holder's contract:

    1. ``messages`` may leave at once.
    2. ``write`` is made durable; writes complete first in, first out.
    3. ``promises`` leave only when this Ready's write *and every write before it* is durable. With no write
       here and none under way, that is at once.
    4. then ``Node.persisted(mark)`` is called, if there was a write; it says whether a turn is due.
    5. the machine becomes that of the snapshot ``installed``, if there is one: all before it is in it.
    6. ``committed`` is applied in log order; it need not wait for this node's own disk, since a majority has
       it.
    7. ``reads`` are answered once their index is applied.
    8. Each of ``snapshots_for`` is sent a snapshot that reaches our log's beginning, or further;
       ``Node.snapshot_ended`` is told when that is over.
    9. Links are made to the members of ``membership``, the one in force now, if it isn't None: it changed.
       NB: it may change back: what is appended may be cut again. ``Node.contacts`` has those, too, who are no
       members any more and are still to hear that.
    """

    messages: tuple[Envelope, ...]
    write: Write | None
    promises: tuple[Envelope, ...]
    mark: Mark
    committed: tuple[Entry, ...]
    reads: tuple[ReadGrant, ...]
    installed: SnapshotMeta | None = None
    snapshots_for: tuple[NodeId, ...] = ()
    membership: Membership | None = None
    change_replies: tuple[ChangeReply, ...] = ()
