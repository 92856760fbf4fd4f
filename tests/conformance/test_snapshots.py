"""A follower whose log begins after a snapshot: what it makes of requests round that beginning, and of the
members that an installed snapshot names.

Scenarios that etcd-io/raft's ``raft_test.go`` tries with ``restore``, and rules behind bugs of others (L9);
docs/conformance.md says which.
"""

from __future__ import annotations

import pytest

from raftkv.consensus import Envelope, Log, Node
from raftkv.consensus.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, Message, PreVote
from raftkv.consensus.roles import Follower
from raftkv.consensus.types import (
    NO_SNAPSHOT,
    GroupId,
    HardState,
    Index,
    Learner,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
)
from tests.consensus.harness import entries

ME, N2, N3, N4 = (NodeId(f"n{number}") for number in range(1, 5))
EVERYTHING = entries(1, 1, 1, 2, 2, 2)  # what the leader, n2, has; committed up to 4


def follower(
    log: Log, *, term: int = 2, vote: NodeId | None = None, members: Membership | None = None
) -> Node:
    """n1, which has applied what its log doesn't have any more."""
    return Node(
        ME,
        members or Membership.of("n1", "n2", "n3"),
        uniform=lambda low, high: low,
        now_ms=0.0,
        hard_state=HardState(Term(term), vote),
        log=log,
    )


def hear(node: Node, message: Message, term: int = 2) -> list[Message]:
    """What leaves because n2 said that, once the disk has written what it led to."""
    node.step(Envelope(GroupId(0), N2, ME, Term(term), message))
    ready = node.take_ready()
    if ready.write is not None:
        node.persisted(ready.mark)
    return [each.message for each in (*ready.messages, *ready.promises)]


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("prev", range(5))
@pytest.mark.parametrize("held", [4, 5])
def test_entries_round_the_beginning(held: int, prev: int, count: int) -> None:
    """Its log begins after entry 4 and ends with ``held``. Of what it is sent, from before or from there, it
    appends what it lacks, and acknowledges what the request covers.
    """
    node = follower(Log(EVERYTHING[4:held], SnapshotMeta(Index(4), Term(2), 0)))
    new = tuple(EVERYTHING[prev : prev + count])
    prev_term = EVERYTHING[prev - 1].term if prev else 0
    answers = hear(node, AppendEntries(Index(prev), Term(prev_term), new, Index(4)))
    covered = prev + len(new)
    assert answers == [AppendEntriesReply(Index(covered))]
    assert node.log.slice(Index(5), 1 << 20) == tuple(EVERYTHING[4 : max(held, covered)])
    assert node.commit_index == 4


def voting(*names: str) -> Membership:
    return Membership.of(*names)


JOINT = Membership(voters=(ME, N2, N4), outgoing=(ME, N2, N3))
AMONG_LEARNERS = Membership(voters=(N2, N3), learners=(Learner(ME, False, None),))


@pytest.mark.parametrize(
    ("before", "after", "stands"),
    [
        pytest.param(voting("n1", "n2"), voting("n1", "n2", "n3"), True, id="TestRestore"),
        pytest.param(voting("n1", "n2", "n3"), JOINT, True, id="TestRestoreWithVotersOutgoing"),
        pytest.param(voting("n1", "n2", "n3"), AMONG_LEARNERS, False, id="TestRestoreVoterToLearner"),
        pytest.param(AMONG_LEARNERS, voting("n1", "n2", "n3"), True, id="TestRestoreLearnerPromotion"),
        pytest.param(AMONG_LEARNERS, AMONG_LEARNERS, False, id="TestLearnerReceiveSnapshot"),
        pytest.param(
            voting("n1", "n2"),
            Membership(voters=(ME, N2), learners=(Learner(N4, True, None),)),
            True,
            id="TestRestoreWithLearner",
        ),
    ],
)
def test_an_installed_snapshot_says_who_the_members_are(
    before: Membership, after: Membership, stands: bool
) -> None:
    """... and where the log begins; its sender is followed; only a voter stands once it is silent."""
    node = follower(Log(EVERYTHING[:2], NO_SNAPSHOT), term=1, members=before)
    meta = SnapshotMeta(Index(11), Term(2), 30)
    assert hear(node, InstallSnapshot(meta, after), term=3) == [AppendEntriesReply(Index(11))]
    assert (node.log.boundary, node.log.last_index, node.log.last_term) == (meta, 11, 2)
    assert (node.commit_index, node.current_term, node.leader) == (11, 3, N2)
    assert node.membership == after
    assert isinstance(node.role, Follower)
    node.tick(node.due_ms)
    asked = {(each.receiver, type(each.message)) for each in node.take_ready().messages}
    others = set(after.electorate) - {ME}
    assert asked == ({(name, PreVote) for name in others} if stands else set())


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_a_snapshot_of_what_is_committed_or_held_changes_no_log(index: int) -> None:
    """TestRestoreIgnoreSnapshot: 2 entries are committed, 4 held; only the commit index may move."""
    node = follower(Log(EVERYTHING[:4], NO_SNAPSHOT))
    hear(node, AppendEntries(Index(2), Term(1), (), Index(2)))
    meta = SnapshotMeta(Index(index), EVERYTHING[index - 1].term, 0)
    answers = hear(node, InstallSnapshot(meta, voting("n1", "n2", "n3")))
    assert answers == [AppendEntriesReply(Index(index))]
    assert node.log.slice(Index(1), 1 << 20) == tuple(EVERYTHING[:4])
    assert node.commit_index == max(2, index)


def test_a_snapshot_lowers_no_term_and_takes_back_no_vote() -> None:
    """L11: it is of an earlier term than the node's."""
    node = follower(Log(EVERYTHING[:2], NO_SNAPSHOT), term=5, vote=N2)
    meta = SnapshotMeta(Index(11), Term(2), 30)
    assert hear(node, InstallSnapshot(meta, voting("n1", "n2", "n3")), term=5) == [
        AppendEntriesReply(Index(11))
    ]
    assert (node.current_term, node.voted_for) == (5, N2)
    assert node.log.last_term == 2
