"""Raft paper, section 5.4: safety; Figure 3 and Figure 8."""

from __future__ import annotations

import pytest

from raftkv.consensus.messages import AppendEntries, RequestVote, RequestVoteReply
from raftkv.consensus.types import HardState, Index, Limits, Term
from tests.consensus.harness import Cluster, entries
from tests.consensus.single import Single, messages


@pytest.mark.parametrize(
    ("log", "last_index", "last_term", "granted"),
    [
        # the later last term wins, whatever the lengths
        ([1, 1, 2], 1, 3, True),
        ([1, 1, 2], 9, 1, False),
        ([1, 1, 2], 3, 1, False),
        ([2], 1, 3, True),
        # with the same last term the longer log wins
        ([1, 1, 2], 3, 2, True),
        ([1, 1, 2], 4, 2, True),
        ([1, 1, 2], 2, 2, False),
        # empty logs
        ([], 0, 0, True),
        ([], 1, 1, True),
        ([1], 0, 0, False),
    ],
)
def test_a_voter_denies_its_vote_if_its_own_log_is_more_up_to_date(
    log: list[int], last_index: int, last_term: int, granted: bool
) -> None:
    """5.4.1: the voter denies its vote if its own log is more up-to-date than that of the candidate."""
    single = Single(log=log)
    sent = single.receive("n2", RequestVote(Index(last_index), Term(last_term)), term=5)
    assert messages(sent, RequestVoteReply) == [RequestVoteReply(granted)]
    assert single.node.voted_for == ("n2" if granted else None)


@pytest.mark.parametrize(
    ("voted_for", "last_index", "last_term", "granted"),
    [
        (None, 0, 0, False),
        (None, 1, 1, False),
        (None, 2, 1, False),
        (None, 3, 1, False),
        (None, 0, 2, False),
        (None, 1, 2, False),
        (None, 2, 2, True),
        (None, 3, 2, True),
        (None, 0, 3, True),
        (None, 1, 3, True),
        (None, 2, 3, True),
        (None, 3, 3, True),
        ("n2", 2, 2, True),
        ("n2", 3, 3, True),
        ("n2", 1, 2, False),
        ("n2", 3, 1, False),
        ("n3", 2, 2, False),
        ("n3", 3, 2, False),
        ("n3", 3, 3, False),
        ("n1", 3, 3, False),
    ],
)
def test_the_vote_table(voted_for: str | None, last_index: int, last_term: int, granted: bool) -> None:
    """Figure 2, RequestVote 2: votedFor is null or the candidate, and its log is at least as up-to-date."""
    single = Single(log=[1, 2], term=4, vote=voted_for)
    sent = single.receive("n2", RequestVote(Index(last_index), Term(last_term)), term=4)
    assert messages(sent, RequestVoteReply) == [RequestVoteReply(granted)]


def test_the_vote_request_describes_the_candidates_log() -> None:
    """5.4.1: the RPC includes information about the candidate's log."""
    sent = Single(log=[1, 1, 3]).stand()
    assert set(messages(sent, RequestVote)) == {RequestVote(Index(3), Term(3))}


@pytest.mark.parametrize(
    ("log", "acks", "commit"),
    [
        # the leader's no-op is the entry after these, in the term after the last one
        ([1], {"n2": 2}, 2),
        ([1], {"n2": 1, "n3": 1}, 0),
        ([1, 2], {"n2": 1, "n3": 2}, 0),
        ([1, 2], {"n2": 2, "n3": 2}, 0),
        ([1, 2], {"n3": 3}, 3),
        ([1, 2], {"n2": 1, "n3": 3}, 3),
    ],
)
def test_only_entries_of_the_current_term_are_committed_by_counting(
    log: list[int], acks: dict[str, int], commit: int
) -> None:
    """5.4.2: Raft never commits log entries from previous terms by counting replicas."""
    single = Single(log=log)
    single.lead()
    for peer, match in acks.items():
        single.acknowledge(peer, match)
    assert single.node.commit_index == commit


def test_committing_an_entry_commits_all_before_it() -> None:
    """5.3/5.4.2: once an entry from the current term has been committed, all prior entries are, in order."""
    single = Single(log=[1, 2, 2])
    single.lead()
    single.acknowledge("n2", 4)
    assert [(each.index, each.term) for each in single.applied] == [(1, 1), (2, 2), (3, 2), (4, 3)]


def test_a_leader_opens_its_term_with_a_no_op() -> None:
    """Section 8: each leader commits a blank no-op entry at the start of its term."""
    single = Single(log=[1, 1])
    sent = single.lead()
    for request in messages(sent, AppendEntries):
        assert isinstance(request, AppendEntries)
        assert [(each.index, each.term, each.data) for each in request.entries] == [(3, 2, b"")]


def figure_8(*, s3_logs: list[int]) -> Cluster:
    """Figure 8 at time (c), before s1 leads again: s1 has 1,2; s2 1,2; s3 as given; s4 1; s5 1,3."""
    logs = {
        "n1": entries(1, 2),
        "n2": entries(1, 2),
        "n3": entries(*s3_logs),
        "n4": entries(1),
        "n5": entries(1, 3),
    }
    return Cluster(logs, logs=logs, limits=Limits(max_append_bytes=1))


def test_figure_8_an_old_entry_on_a_majority_can_still_be_overwritten() -> None:
    """(c) to (d): index 2 of term 2 is on three of five and not committed; s5 may replace it."""
    cluster = figure_8(s3_logs=[1, 2])
    for server in cluster.servers.values():
        assert server.node is not None
        assert server.node.commit_index == 0
    cluster.isolate("n1")
    cluster.campaign("n5")
    cluster.settle()
    while cluster.leaders != ["n5"]:
        cluster.campaign("n5")
        cluster.settle()
    cluster.heal()
    assert cluster.run(3000, lambda: all(s.node and s.node.commit_index >= 3 for s in cluster.living))
    assert cluster.checks.committed[1].term == 3


def test_figure_8_an_entry_of_its_own_term_makes_it_safe() -> None:
    """(e): if s1 replicates an entry of its current term on a majority, s5 cannot win an election."""
    cluster = figure_8(s3_logs=[1])
    cluster.isolate("n5")
    cluster.campaign("n1")
    cluster.settle()
    while cluster.node("n1").commit_index < 3:
        cluster.campaign("n1")
        cluster.settle()
    assert [each.term for each in cluster.checks.committed][:2] == [1, 2]
    cluster.heal()
    cluster.isolate("n1")
    for _ in range(4):
        cluster.now_ms += 700
        cluster.campaign("n5")
        cluster.settle()
        assert "n5" not in cluster.leaders
    cluster.heal()
    assert cluster.run(3000, lambda: cluster.node("n5").commit_index >= 3)
    assert [each.term for each in cluster.servers["n5"].disk.entries][:2] == [1, 2]


def test_an_elected_leader_overwrites_uncommitted_entries_of_later_terms() -> None:
    """A leader whose log misses an uncommitted tail of a higher term may win by the votes of others."""
    logs = {"n1": entries(1), "n2": entries(1), "n3": entries(2, 2)}
    cluster = Cluster(logs, logs=logs, hard_states=dict.fromkeys(logs, HardState(Term(2), None)))
    cluster.isolate("n3")
    cluster.campaign("n1")
    cluster.settle()
    assert cluster.leaders == ["n1"]
    cluster.heal()
    assert cluster.run(3000, lambda: all(s.node and s.node.commit_index >= 2 for s in cluster.living))
    assert [each.term for each in cluster.servers["n3"].disk.entries] == [1, 3]
