"""What every log must keep to where members change: one change at a time, and only by legal steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.membership import decode_membership
from raftkv.consensus.node import Node
from raftkv.consensus.quorum import majority
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Entry, EntryKind, Index, Membership, NodeId


def check_changes(node: Node, entries: Sequence[Entry], committed: int) -> None:
    """``entries`` are new in the node's log; ``committed``: up to where anyone knows it to be decided."""
    new = [entry for entry in entries if entry.kind is EntryKind.CONFIG]
    if not new:
        return
    first = Index(max(committed, node.log.boundary.index) + 1)
    pending = [each.index for each in node.log.slice(first, 1 << 62) if each.kind is EntryKind.CONFIG]
    if len(pending) > 1:
        raise InvariantBroken(f"{node.node_id} has changes of members at {pending}; {committed} is committed")
    if node.membership != decode_membership(new[-1].data):
        raise InvariantBroken(f"{node.node_id} goes by {node.membership}, its log ends with another one")
    role = node.role
    if isinstance(role, Leader) and new[-1].term == node.current_term and node.commit_index < role.term_start:
        raise InvariantBroken(f"{node.node_id} changes members before it has committed anything of its term")
    for entry in new:
        check_step(node.membership_at(Index(entry.index - 1)), decode_membership(entry.data))


def check_elected(leader: NodeId, membership: Membership, votes: Mapping[NodeId, NodeId | None]) -> None:
    """``votes``: for whom each node voted in the leader's term. Each half has its own majority."""
    for half in membership.halves:
        given = [voter for voter in half if votes[voter] == leader]
        if len(given) < majority(len(half)):
            raise InvariantBroken(f"{leader} leads with the votes of {given} among {half}")


def check_step(before: Membership, after: Membership) -> None:
    """A joint membership follows on that of those who voted before, and leads to those who will; other
    changes leave the voters as they are.
    """
    if not before.voters:
        sound = True  # who joins doesn't know who was there before
    elif before.is_joint:
        sound = not after.is_joint and after.voters == before.voters
    elif after.is_joint:
        sound = after.outgoing == before.voters
    else:
        sound = after.voters == before.voters
    if not sound:
        was = f"{before.voters}, joint with {before.outgoing}"
        raise InvariantBroken(f"members changed in an illegal step: voters {after.voters} after {was}")
