"""Who belongs to the group, and since when: memberships as bytes, where the log changes them, and what a
change makes of them. Pure values; ``changes.py`` has the leader's part.

A membership is in force on a node from the moment its entry is in that node's log, committed or not (section
6), and no longer than that: where the log is cut, the one before is in force again.

As bytes a membership is plain text, a line a fact, in this order and no other::

    membership 1
    voters n1 n2 n4
    outgoing n1 n2 n3
    learner n5 promote n1
    address n1 10.0.0.1:7101

The first line has the format's version. ``voters`` is always there. A learner's second word is ``promote`` or
``stay``; its third, whom it replaces, may be missing. There is one way to write a membership, so equal ones
are equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.types import (
    AddLearner,
    Change,
    Entry,
    EntryKind,
    Index,
    Learner,
    Membership,
    Move,
    NodeId,
    Promote,
    Remove,
)

MAX_MEMBERS = 64
MAX_ADDRESS_CHARS = 262  # a DNS name of 255, a colon, a port
MAX_NAME_CHARS = 64

_FIRST_LINE = "membership 1"
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


# -- as bytes ----------------------------------------------------------------------------------------------


def encode_membership(membership: Membership) -> bytes:
    lines = [_FIRST_LINE, " ".join(("voters", *membership.voters))]
    if membership.outgoing:
        lines.append(" ".join(("outgoing", *membership.outgoing)))
    for each in membership.learners:
        replaces = () if each.replaces is None else (each.replaces,)
        lines.append(" ".join(("learner", each.node, "promote" if each.promote else "stay", *replaces)))
    lines += [f"address {node} {address}" for node, address in membership.addresses]
    return "\n".join(lines).encode()


def decode_membership(data: bytes) -> Membership:
    """Raises ValueError for all that ``encode_membership`` doesn't write, ids and addresses out of bounds
    included.
    """
    first, *lines = data.decode().split("\n")
    if first != _FIRST_LINE:
        raise ValueError(f"a membership begins with {_FIRST_LINE!r}, not with {first[:40]!r}")
    voters: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()
    learners: list[Learner] = []
    addresses: list[tuple[NodeId, str]] = []
    for line in lines:
        match line.split(" "):
            case ["voters", *names]:
                voters = _names(names)
            case ["outgoing", *names]:
                outgoing = _names(names)
            case ["learner", name, ("promote" | "stay") as word, *replaces] if len(replaces) <= 1:
                replaced = _names(replaces)
                learners.append(
                    Learner(check_name(name), word == "promote", replaced[0] if replaced else None)
                )
            case ["address", name, address]:
                addresses.append((check_name(name), check_address(address)))
            case _:
                raise ValueError(f"a membership has no line {line[:80]!r}")
    membership = Membership(voters, outgoing, tuple(learners), tuple(addresses))
    if len(membership.members) > MAX_MEMBERS:
        raise ValueError(f"a membership of {len(membership.members)} is over the limit of {MAX_MEMBERS}")
    if encode_membership(membership) != data:
        raise ValueError("a membership whose lines are out of order, or repeated")
    return membership


def _names(words: Iterable[str]) -> tuple[NodeId, ...]:
    return tuple(check_name(word) for word in words)


def check_name(name: str) -> NodeId:
    """A node's id, or ValueError."""
    if not 0 < len(name) <= MAX_NAME_CHARS or not _NAME_CHARS.issuperset(name):
        raise ValueError(f"{name[:80]!r} is no id: 1-{MAX_NAME_CHARS} of A-Z a-z 0-9 . _ -")
    return NodeId(name)


def check_address(address: str) -> str:
    """An address: printable ASCII without blanks, or ValueError. What it means is the business of others."""
    if not 0 < len(address) <= MAX_ADDRESS_CHARS or not all("!" <= char <= "~" for char in address):
        raise ValueError(f"{address[:80]!r} is no address: 1-{MAX_ADDRESS_CHARS} printable characters")
    return address


# -- where the log changes them ----------------------------------------------------------------------------


class Configurations:
    """Which membership is in force from which index on: that of the snapshot or the founding, and those in
    the log after it.
    """

    __slots__ = ("_known",)

    def __init__(self, membership: Membership, since: Index, later: Iterable[Entry] = ()) -> None:
        """``membership`` is in force at ``since``; ``later`` are the log's entries after that."""
        self._known = [(since, membership)]
        self.add(later)

    @property
    def current(self) -> Membership:
        return self._known[-1][1]

    @property
    def since(self) -> Index:
        """The index from which on the current one is in force."""
        return self._known[-1][0]

    @property
    def first(self) -> Index:
        """The index from which on anything is known."""
        return self._known[0][0]

    def at(self, index: Index) -> Membership:
        """The one in force at ``index``, which isn't before what is known."""
        return self.from_index(index)[0]

    def from_index(self, index: Index) -> list[Membership]:
        """Those in force at ``index`` or later."""
        position = len(self._known) - 1
        while self._known[position][0] > index:
            position -= 1
            if position < 0:
                raise InvariantBroken(f"the membership at {index} was asked for, and is forgotten")
        return [membership for _, membership in self._known[position:]]

    def add(self, entries: Iterable[Entry]) -> None:
        """These are appended to the log."""
        for entry in entries:
            if entry.kind is EntryKind.CONFIG:
                try:
                    self._known.append((entry.index, decode_membership(entry.data)))
                except ValueError as error:
                    raise InvariantBroken(f"entry {entry.index} holds no membership: {error}") from None

    def cut(self, index: Index) -> None:
        """The log is cut from ``index`` on: what was in force before is so again."""
        while len(self._known) > 1 and self._known[-1][0] >= index:
            self._known.pop()

    def forget(self, index: Index) -> None:
        """The log begins after ``index``."""
        while len(self._known) > 1 and self._known[1][0] <= index:
            del self._known[0]


# -- what a change makes of them ---------------------------------------------------------------------------


class Refused(Exception):
    """A change that can't be made; the message says why."""


def changed(current: Membership, change: Change) -> Membership:
    """What ``change`` makes of ``current``, which isn't joint; the same if it is as wished already.

    Raises Refused.
    """
    match change:
        case AddLearner():
            return _with_learner(current, change)
        case Promote(node):
            learner = current.learner(node)
            if learner is not None:
                return promoted(current, learner)
            if node not in current.voters:
                raise Refused(f"{node} is no member; add it first")
            return current
        case Remove(node):
            return _without(current, node)
        case Move(node, address):
            if node not in current.members:
                raise Refused(f"{node} is no member, so it can't get another address")
            return _copy(current, addresses=dict(current.addresses) | {node: address})


def joint(current: Membership, target: Membership) -> Membership:
    """What must be decided before ``target`` may be in force: itself, unless other nodes vote in it."""
    if target.voters == current.voters:
        return target
    addresses = tuple(sorted((dict(current.addresses) | dict(target.addresses)).items()))
    return Membership(target.voters, current.voters, target.learners, addresses)


def left(membership: Membership) -> Membership:
    """What follows on a joint membership."""
    return _copy(membership, outgoing=())


def promoted(current: Membership, learner: Learner) -> Membership:
    voters = ({*current.voters} | {learner.node}) - {learner.replaces}
    learners = [each for each in current.learners if each != learner]
    return _copy(current, voters=voters, learners=learners)


def _with_learner(current: Membership, change: AddLearner) -> Membership:
    node, replaces = change.node, change.replaces
    known = current.address(node)
    if node in current.members and known != change.address:
        raise Refused(f"{node} is a member already, with the address {known or 'that it was started at'}")
    if node in current.voters and replaces not in current.voters:
        return current
    if replaces is not None and (node in current.voters or replaces == node):
        raise Refused(f"{node} can't replace {replaces}: who replaces another must be a new member")
    if replaces is not None and replaces not in current.voters:
        raise Refused(f"{replaces} can't be replaced: it doesn't vote")
    if node not in current.members and len(current.members) >= MAX_MEMBERS:
        raise Refused(f"a cluster has at most {MAX_MEMBERS} members")
    learners = [each for each in current.learners if each.node != node]
    learners.append(Learner(node, change.promote, replaces))
    return _copy(current, learners=learners, addresses=dict(current.addresses) | {node: change.address})


def _without(current: Membership, node: NodeId) -> Membership:
    if node not in current.members:
        return current
    if current.voters == (node,):
        raise Refused(f"{node} is the last voter; without it nothing could be decided")
    return _copy(
        current,
        voters={*current.voters} - {node},
        learners=[each for each in current.learners if each.node != node],
    )


def _copy(
    current: Membership,
    *,
    voters: Iterable[NodeId] | None = None,
    outgoing: Iterable[NodeId] | None = None,
    learners: Iterable[Learner] | None = None,
    addresses: dict[NodeId, str] | None = None,
) -> Membership:
    """``current`` with what is given changed; addresses and wishes of who is no member any more are gone."""
    new_voters = tuple(sorted(current.voters if voters is None else voters))
    old_voters = tuple(current.outgoing if outgoing is None else outgoing)
    chosen = sorted(current.learners if learners is None else learners, key=lambda each: each.node)
    new_learners = tuple(
        Learner(each.node, each.promote, each.replaces if each.replaces in new_voters else None)
        for each in chosen
    )
    members = {*new_voters, *old_voters, *(each.node for each in new_learners)}
    known = dict(current.addresses) if addresses is None else addresses
    return Membership(
        new_voters,
        old_voters,
        new_learners,
        tuple((node, known[node]) for node in sorted(known) if node in members),
    )
