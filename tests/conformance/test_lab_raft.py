"""The scenarios of MIT 6.5840's Raft lab (3A, 3B) on the core: elections and agreement."""

from __future__ import annotations

import pytest

from raftkv.consensus import Envelope
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    Heartbeat,
    PreVote,
    ReadIndex,
    RequestVote,
)
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Index
from tests.conformance.lab import ELECTION_MS, Lab

REQUESTS = (AppendEntries, Heartbeat, PreVote, RequestVote, ReadIndex)

seeds = pytest.mark.parametrize("seed", range(5))


def count_requests(lab: Lab) -> list[Envelope]:
    """The requests that leave from now on, in a list that grows."""
    requests: list[Envelope] = []
    lab.on_send = lambda sent: requests.append(sent) if isinstance(sent.message, REQUESTS) else None
    return requests


# -- 3A ----------------------------------------------------------------------------------------------------


@seeds
def test_initial_election(seed: int) -> None:
    """TestInitialElection3A: one leader; the term is one for all, and stays."""
    lab = Lab(3, seed=seed)
    leader = lab.leader()
    lab.run(50)
    (term,) = lab.terms
    assert term >= 1
    lab.run(2 * ELECTION_MS)
    assert lab.leaders == [leader]
    assert lab.terms == {term}


@seeds
def test_reelection(seed: int) -> None:
    """TestReElection3A: no leader where there is no majority, and one as soon as there is again."""
    lab = Lab(3, seed=seed)
    first = lab.leader()
    lab.disconnect(first)
    second = lab.leader()
    (term,) = lab.terms
    lab.connect()
    lab.run(2 * ELECTION_MS)
    assert lab.leaders == [second], "who comes back disturbs nobody"
    assert lab.terms == {term}
    (third,) = lab.others(first, second)
    lab.disconnect(second, third)
    lab.run(2 * ELECTION_MS)
    assert lab.leaders == [], "neither the lone node, nor who led before"
    lab.connect(third)
    fourth = lab.leader()
    assert fourth in (first, third)
    (term,) = lab.terms
    lab.connect()
    lab.run(2 * ELECTION_MS)
    assert lab.leaders == [fourth]
    assert lab.terms == {term}


@seeds
def test_many_elections(seed: int) -> None:
    """TestManyElections3A: three of seven are away, others each time; the four elect, and all seven do."""
    lab = Lab(7, seed=seed)
    lab.leader()
    for _ in range(10):
        lab.disconnect(*lab.random.sample(lab.names, 3))
        assert lab.run(5 * ELECTION_MS, lambda: lab.leads() is not None)
        lab.connect()
        assert lab.run(5 * ELECTION_MS, lambda: lab.leads() is not None)
    lab.run(2 * ELECTION_MS)
    assert len(lab.leaders) == 1


# -- 3B ----------------------------------------------------------------------------------------------------


@seeds
def test_basic_agreement(seed: int) -> None:
    """TestBasicAgree3B: one index after the other, behind the leader's no-op; nothing before it is asked."""
    lab = Lab(5, seed=seed)
    lab.leader()
    lab.run(100)
    for number in range(3):
        data = b"%d" % number
        assert lab.holders(data) == 0
        assert lab.one(data, 5) == number + 2


@seeds
def test_bytes_are_sent_once_to_each(seed: int) -> None:
    """TestRPCBytes3B: each command goes to each peer once."""
    lab = Lab(3, seed=seed)
    lab.one(b"first", 3)
    requests = count_requests(lab)
    for number in range(10):
        lab.one(b"%d" % number * 5000, 3)
    appends = [each.message for each in requests if isinstance(each.message, AppendEntries)]
    assert sum(len(entry.data) for each in appends for entry in each.entries) == 2 * 10 * 5000


@seeds
def test_failing_followers(seed: int) -> None:
    """TestFollowerFailure3B: with one of three it goes on, with both it doesn't."""
    lab = Lab(3, seed=seed)
    lab.one(b"101", 3)
    leader = lab.leader()
    one, other = lab.others(leader)
    lab.disconnect(one)
    lab.one(b"102", 2)
    lab.run(ELECTION_MS)
    lab.one(b"103", 2)
    assert lab.leader() == leader
    lab.disconnect(other)
    assert lab.propose(leader, b"104")
    lab.run(2 * ELECTION_MS)
    assert lab.holders(b"104") == 0
    assert lab.leaders == []


@seeds
def test_failing_leaders(seed: int) -> None:
    """TestLeaderFailure3B: the first, then the second; the third is alone."""
    lab = Lab(3, seed=seed)
    lab.one(b"101", 3)
    first = lab.leader()
    lab.disconnect(first)
    lab.one(b"102", 2)
    lab.run(ELECTION_MS)
    lab.one(b"103", 2)
    lab.disconnect(lab.leader())
    for name in lab.names:
        lab.propose(name, b"104")
    lab.run(2 * ELECTION_MS)
    assert lab.holders(b"104") == 0


@seeds
def test_who_was_away_agrees_again(seed: int) -> None:
    """TestFailAgree3B: a follower comes back and catches up."""
    lab = Lab(3, seed=seed)
    lab.one(b"101", 3)
    away = lab.others(lab.leader())[0]
    lab.disconnect(away)
    for data in (b"102", b"103"):
        lab.one(data, 2)
    lab.run(ELECTION_MS)
    for data in (b"104", b"105"):
        lab.one(data, 2)
    lab.connect()
    lab.one(b"106", 3)
    lab.run(ELECTION_MS)
    lab.one(b"107", 3)
    assert [entry.data for entry in lab.servers[away].applied if entry.data] == [
        b"101", b"102", b"103", b"104", b"105", b"106", b"107",
    ]  # fmt: skip


@seeds
def test_no_agreement_with_too_many_away(seed: int) -> None:
    """TestFailNoAgree3B: what three of five didn't see isn't committed; its index is taken again, or kept."""
    lab = Lab(5, seed=seed)
    assert lab.one(b"10", 5) == 2
    leader = lab.leader()
    lab.disconnect(*lab.others(leader)[:3])
    assert lab.propose(leader, b"20")
    assert lab.node(leader).log.last_index == 3
    lab.run(2 * ELECTION_MS)
    assert lab.holders(b"20") == 0
    lab.connect()
    # The new leader's no-op is before it, and "20" too if one that had it was elected.
    assert lab.one(b"30", 5) in (4, 5)
    lab.one(b"1000", 5)
    assert lab.holders(b"20") in (0, 5)


@seeds
def test_proposals_of_one_moment(seed: int) -> None:
    """TestConcurrentStarts3B: five that wait for nothing, in one term, get five indexes."""
    lab = Lab(3, seed=seed)
    leader = lab.leader()
    (term,) = lab.terms
    batches = [b"%d" % number for number in range(5)]
    assert all(lab.propose(leader, each) for each in batches)
    assert lab.run(100, lambda: all(lab.holders(each) == 3 for each in batches))
    assert [lab.where[each][leader] for each in batches] == [2, 3, 4, 5, 6]
    assert lab.terms == {term}


@seeds
def test_a_cut_off_leader_comes_back_with_entries_of_its_own(seed: int) -> None:
    """TestRejoin3B: its tail that nobody else has gives way."""
    lab = Lab(3, seed=seed)
    lab.one(b"101", 3)
    first = lab.leader()
    lab.disconnect(first)
    for data in (b"lost 1", b"lost 2", b"lost 3"):
        assert lab.propose(first, data)
    lab.one(b"103", 2)
    second = lab.leader()
    lab.disconnect(second)
    lab.connect(first)
    lab.one(b"104", 2)
    lab.connect()
    lab.one(b"105", 3)
    for server in lab.living:
        assert [entry.data for entry in server.applied if entry.data] == [b"101", b"103", b"104", b"105"]


@seeds
def test_backing_up_over_many_wrong_entries(seed: int) -> None:
    """TestBackup3B: fifty entries at a time that are never committed, in two partitions one after the other;
    they cost refusals by the term, not by the entry.
    """
    lab = Lab(5, seed=seed)
    lab.one(b"first", 5)
    first = lab.leader()
    ally, *rest = lab.others(first)
    lab.disconnect(*rest)
    assert all(lab.propose(first, b"wrong 1 %d" % i) for i in range(50))
    lab.run(100)
    lab.disconnect(first, ally)
    lab.connect(*rest)
    lab.all_of([b"right 1 %d" % i for i in range(50)], 3)
    second = lab.leader()
    away = next(name for name in rest if name != second)
    lab.disconnect(away)
    assert all(lab.propose(second, b"wrong 2 %d" % i) for i in range(50))
    lab.run(100)
    lab.disconnect(*lab.names)
    refusals: list[Envelope] = []
    lab.on_send = lambda sent: (
        refusals.append(sent) if isinstance(sent.message, AppendEntriesRefusal) else None
    )
    lab.connect(first, ally, away)
    lab.all_of([b"right 2 %d" % i for i in range(50)], 3)
    lab.connect()
    lab.one(b"last", 5)
    for server in lab.living:
        applied = [entry.data for entry in server.applied if entry.data]
        assert len(applied) == 102
        assert not any(data.startswith(b"wrong") for data in applied)
    assert len(refusals) <= 20


@seeds
def test_no_more_messages_than_needed(seed: int) -> None:
    """TestCount3B: requests until there is a leader; for ten entries; in an idle second."""
    lab = Lab(3, seed=seed)
    requests = count_requests(lab)
    leader = lab.leader()
    assert len(requests) <= 30
    lab.run(100)
    requests.clear()
    assert all(lab.propose(leader, b"%d" % number) for number in range(10))
    assert lab.run(100, lambda: all(lab.holders(b"%d" % number) == 3 for number in range(10)))
    assert len(requests) <= (10 + 1 + 3) * 3
    lab.run(100)
    requests.clear()
    lab.run(1000)
    assert lab.leaders == [leader]
    assert len(requests) <= 60
    assert isinstance(lab.node(leader).role, Leader)
    assert lab.node(leader).commit_index == Index(11)
