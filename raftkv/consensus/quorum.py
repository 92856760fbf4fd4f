"""Majorities, as pure functions. A voter counts once; who isn't a voter never counts (checklist E3).

A membership has one half, or two while it is joint. Whatever is decided is decided by a majority of *each*
half: never by one of all together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

from raftkv.consensus.types import NodeId

Ordered = TypeVar("Ordered", bound=Any)


class VoteResult(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: int) -> int:
    """How many of ``voters`` (>= 1) any two majorities share one of."""
    return voters // 2 + 1


def majority_value(values: Iterable[Ordered]) -> Ordered:
    """The largest value that a majority has reached, given one value for each voter (at least one).

    With match indexes it is the index stored on a majority (section 5.3), with rounds the confirmed round,
    with times of last contact the moment since which a majority has been in touch.
    """
    ordered = sorted(values, reverse=True)
    return ordered[majority(len(ordered)) - 1]


def tally(voters: Iterable[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    """Whether ``votes`` decide an election. Votes of non-voters are not counted."""
    answers = [votes.get(voter) for voter in voters]
    needed = majority(len(answers))
    if sum(answer is True for answer in answers) >= needed:
        return VoteResult.WON
    if sum(answer is not False for answer in answers) < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def joint_value(halves: Iterable[Iterable[NodeId]], values: Mapping[NodeId, Ordered]) -> Ordered:
    """The largest value that a majority of each half has reached (each has a voter). ``values`` has one for
    each voter; what it has for others isn't looked at.
    """
    return min(majority_value([values[voter] for voter in half]) for half in halves)


def joint_result(results: Iterable[VoteResult]) -> VoteResult:
    """What an election has come to, given what it has in each half: lost where one is."""
    known = set(results)
    if VoteResult.LOST in known:
        return VoteResult.LOST
    return VoteResult.WON if known == {VoteResult.WON} else VoteResult.PENDING
