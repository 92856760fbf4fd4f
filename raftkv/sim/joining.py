"""Changes of members in the simulator: spare servers that know nobody, and clients that wish for changes.

A run with spares damages no disk: which nodes make up a majority changes, so less than half of all may be
too many of those who count.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import (
    NOBODY,
    AddLearner,
    Change,
    Entry,
    EntryKind,
    Membership,
    Move,
    NodeId,
    Promote,
    Remove,
)
from raftkv.sim.plan import Plan

CHANGE = "change_members"  # the kind of fault that it is drawn as
DAMAGE = ("flipped_bit",)
SHARE = 0.3  # of the seeds have spares


@dataclass(frozen=True, slots=True)
class MembersTicket:
    """Who waits for a change of members."""

    change: Change


def with_spares(plan: Plan, random: Random) -> Plan:
    """``plan``, or the same with spares and changes of members. ``random`` is of its own, so that a seed
    without spares is the run that it would be if there were none at all.
    """
    if random.random() >= SHARE:
        return plan
    per_second = random.uniform(0.3, 3) / plan.timing.election_timeout_max_ms * 1000
    faults = [each for each in plan.faults if each[0] not in DAMAGE]
    return dataclasses.replace(plan, spares=random.randint(1, 3), faults=(*faults, (CHANGE, per_second)))


def draw_change(random: Random, names: list[NodeId]) -> Change:
    node = random.choice(names)
    replaces = random.choice(names) if random.random() < 0.3 else None
    kinds: list[Change] = [
        AddLearner(node, f"{node}:1", random.random() < 0.8, replaces),
        Promote(node),
        Remove(node),
        Move(node, f"{node}:{random.randrange(1, 3)}"),
    ]
    return random.choices(kinds, (5, 1, 3, 1))[0]


def membership_after(founding: Membership, committed: list[Entry]) -> Membership:
    """The last one that is committed."""
    for entry in reversed(committed):
        if entry.kind is EntryKind.CONFIG:
            return decode_membership(entry.data)
    return founding


def founded_with(plan: Plan, name: NodeId) -> Membership:
    """What a node knows that has no snapshot."""
    return plan.membership if name in plan.membership.voters else NOBODY
