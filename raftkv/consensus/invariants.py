"""The paper's Figure 3 as functions. The tests and the simulator run them on whole clusters after every step.

Each raises ``InvariantBroken`` naming what was violated and by whom. The core raises the same where one node
can see by itself that a promise was broken; whoever runs the node then stops it (a wrong answer is worse than
none).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from raftkv.consensus.quorum import majority

if TYPE_CHECKING:
    from raftkv.consensus.log import Log
    from raftkv.consensus.types import Entry, Index, NodeId, Term


class InvariantBroken(Exception):
    """Something that Raft proves impossible was seen: a bug, or storage that lost what it had confirmed."""


def check_election_safety(leaders: Mapping[Term, NodeId], leader: NodeId, term: Term) -> None:
    """At most one leader in a term. ``leaders`` holds everyone seen to lead so far, by term."""
    known = leaders.get(term, leader)
    if known != leader:
        raise InvariantBroken(f"election safety: both {known} and {leader} lead term {term}")


def check_log_matching(one: Log, other: Log) -> None:
    """If two logs hold an entry with the same index and term, they are identical up to it."""
    matched = False
    first = max(one.boundary.index, other.boundary.index)
    for index in range(min(one.last_index, other.last_index), first, -1):
        mine, theirs = _at(one, index), _at(other, index)
        matched = matched or mine.term == theirs.term
        if matched and mine != theirs:
            raise InvariantBroken(f"log matching: logs agree later but differ at {index}: {mine} / {theirs}")


def check_leader_completeness(leader_log: Log, committed: Sequence[Entry]) -> None:
    """What was committed in an earlier term is in the log of every later leader."""
    for entry in committed:
        if entry.index > leader_log.boundary.index and (
            entry.index > leader_log.last_index or _at(leader_log, entry.index) != entry
        ):
            raise InvariantBroken(
                f"leader completeness: committed entry {entry.index}@{entry.term} is missing"
            )


def check_state_machine_safety(applied: dict[Index, Entry], entry: Entry) -> None:
    """No two nodes apply different entries at an index. Adds ``entry`` to what is known to be applied."""
    known = applied.setdefault(entry.index, entry)
    if known != entry:
        raise InvariantBroken(f"state machine safety: {known} and {entry} were both applied at {entry.index}")


def check_commit_monotonic(node: NodeId, before: Index, after: Index) -> None:
    """A living node never takes back that something is committed (Figure 2: "increases monotonically")."""
    if after < before:
        raise InvariantBroken(f"commit index: {node} went back from {before} to {after}")


def check_durability(committed: Entry, durable_logs: Collection[Sequence[Entry]]) -> None:
    """A committed entry is on the disks of a majority, and stays there. One log for each voter, from index 1.

    NB: with log matching, asking this of the last committed entry answers it for all before.
    """
    holders = sum(
        len(durable) >= committed.index and durable[committed.index - 1] == committed
        for durable in durable_logs
    )
    if holders < majority(len(durable_logs)):
        raise InvariantBroken(
            f"durability: committed entry {committed.index}@{committed.term} is on {holders} of "
            f"{len(durable_logs)} disks"
        )


def _at(log: Log, index: int) -> Entry:
    return log.slice(index, 0, index)[0]  # type: ignore[arg-type]
