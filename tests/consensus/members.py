"""Memberships in the tests of the core: found in logs, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import Entry, EntryKind, Membership, NodeId


def membership_in(log: Iterable[Entry], before: Membership) -> Membership:
    """The one in force at the end of ``log``, if ``before`` was at its beginning."""
    found = [entry for entry in log if entry.kind is EntryKind.CONFIG]
    return decode_membership(found[-1].data) if found else before


def membership_text(membership: Membership) -> str:
    """``{n1 n2 n3}``, ``{n1 n2 n4 | n1 n2 n3}`` while it is joint (who will vote, who did), with learners
    ``{n1 +n4}``, ``{n1 +n4! +n5!n1}``: to be promoted, and in whose place; behind it, addresses.
    """
    words: list[str] = [*membership.voters]
    if membership.is_joint:
        words += ["|", *membership.outgoing]
    for each in membership.learners:
        words.append(f"+{each.node}{'!' if each.promote else ''}{each.replaces or ''}")
    addresses = [f" {node}={address}" for node, address in membership.addresses]
    return "{" + " ".join(words) + "}" + "".join(addresses)


def check_one_at_a_time(node: NodeId, log: Sequence[Entry], committed: int) -> None:
    """No log has two changes of members that aren't committed: one begins when the last one is over."""
    pending = [each.index for each in log if each.kind is EntryKind.CONFIG and each.index > committed]
    if len(pending) > 1:
        raise InvariantBroken(f"{node} has changes of members at {pending}; only {committed} is committed")


def check_step(before: Membership, after: Membership) -> None:
    """What may follow on a membership: a joint one of its voters and others, or one with the same voters;
    on a joint one, only what it leads to.
    """
    if before.is_joint:
        sound = not after.is_joint and after.voters == before.voters
    elif after.is_joint:
        sound = after.outgoing == before.voters
    else:
        sound = after.voters == before.voters
    if not sound:
        raise InvariantBroken(f"{membership_text(after)} follows on {membership_text(before)}")
