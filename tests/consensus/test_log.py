"""The log against a naive model, and quorums against brute force."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.consensus import InvariantBroken, Log
from raftkv.consensus.quorum import VoteResult, majority, majority_value, tally
from raftkv.consensus.types import Entry, EntryKind, Index, Membership, NodeId, SnapshotMeta, Term
from tests.consensus.harness import entry

logs_of_terms = st.lists(st.integers(1, 6), max_size=12).map(sorted)
sizes = st.sampled_from([b"", b"x", b"xxxx"])


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    terms = draw(logs_of_terms)
    return [entry(i, term, draw(sizes)) for i, term in enumerate(terms, 1)]


def all_of(log: Log) -> list[Entry]:
    return list(log.slice(Index(1), 1 << 62))


@given(logs(), logs_of_terms, st.integers(0, 12), st.integers(0, 12))
def test_splice_is_cut_at_the_first_conflict_then_append(
    mine: list[Entry], their_terms: list[int], prev: int, count: int
) -> None:
    theirs = [entry(i, term) for i, term in enumerate(their_terms, 1)]
    shared = 0  # log matching: entries of equal index and term are the same entry, and so are all before
    while shared < min(len(mine), len(theirs)) and mine[shared].term == theirs[shared].term:
        theirs[shared] = mine[shared]
        shared += 1
    if any(one.term == other.term for one, other in zip(mine[shared:], theirs[shared:], strict=False)):
        return
    prev = min(prev, shared)
    sent = theirs[prev : prev + count]
    log = Log(mine)
    new = log.splice(sent, Index(0))
    model = list(mine)
    for each in sent:
        at = each.index - 1
        if at < len(model) and model[at].term != each.term:
            del model[at:]
        if at == len(model):
            model.append(each)
    assert all_of(log) == model
    assert list(new) == [each for each in sent if each.index > shared]


@given(logs(), st.integers(0, 14), st.integers(0, 8))
def test_last_at_or_below_is_the_highest_that_could_match(mine: list[Entry], index: int, term: int) -> None:
    below = [each.index for each in mine if each.index <= index and each.term <= term]
    assert Log(mine).last_at_or_below(Index(index), Term(term)) == max(below, default=0)


@given(logs(), st.integers(1, 14), st.integers(0, 9), st.none() | st.integers(0, 14))
def test_slice_is_bounded_and_never_stuck(
    mine: list[Entry], start: int, max_bytes: int, stop: int | None
) -> None:
    taken = Log(mine).slice(Index(start), max_bytes, None if stop is None else Index(stop))
    wanted = [each for each in mine if start <= each.index <= (len(mine) if stop is None else stop)]
    assert list(taken) == wanted[: len(taken)]
    assert bool(taken) == bool(wanted), "the first is returned even if it is too large"
    if len(taken) > 1:
        assert sum(len(each.data) for each in taken) <= max_bytes
    if len(taken) < len(wanted):
        assert sum(len(each.data) for each in wanted[: len(taken) + 1]) > max_bytes


@given(logs())
def test_terms_and_matches(mine: list[Entry]) -> None:
    log = Log(mine)
    for index in range(len(mine) + 2):
        term = 0 if index == 0 else mine[index - 1].term if index <= len(mine) else None
        assert log.term_at(Index(index)) == term
        assert [log.matches(Index(index), Term(each)) for each in range(8)] == [
            term == each for each in range(8)
        ]


@given(logs_of_terms, logs_of_terms)
def test_up_to_date_is_a_total_order(one: list[int], other: list[int]) -> None:
    mine = Log(entry(i, term) for i, term in enumerate(one, 1))
    theirs = Log(entry(i, term) for i, term in enumerate(other, 1))
    key = [(each.last_term, each.last_index) for each in (mine, theirs)]
    assert mine.is_up_to_date(theirs.last_index, theirs.last_term) == (key[1] >= key[0])


@given(logs_of_terms, logs_of_terms, st.integers(0, 12))
def test_hints_never_skip_the_last_shared_entry(leader: list[int], follower: list[int], prev: int) -> None:
    """Section 5.3: the hint moves the leader back, but not below where the logs agree."""
    shared = 0
    while shared < min(len(leader), len(follower)) and leader[shared] == follower[shared]:
        shared += 1
    if any(a == b for a, b in zip(leader[shared:], follower[shared:], strict=False)):
        return
    ours = Log(entry(i, term) for i, term in enumerate(leader, 1))
    theirs = Log(entry(i, term) for i, term in enumerate(follower, 1))
    index = Index(min(prev, len(leader)))
    term = ours.term_at(index)
    assert term is not None
    if theirs.matches(index, term):
        return
    hint = theirs.last_at_or_below(index, term)
    hint_term = theirs.term_at(hint)
    assert hint_term is not None
    assert shared <= ours.last_at_or_below(hint, hint_term) < index


def test_what_a_log_refuses() -> None:
    log = Log([entry(1, 1), entry(2, 3)])
    for bad in (entry(4, 3), entry(2, 3), entry(3, 2)):
        with pytest.raises(InvariantBroken):
            log.append(bad)
    with pytest.raises(InvariantBroken, match="committed index 2"):
        log.splice([entry(2, 4)], Index(2))
    with pytest.raises(InvariantBroken):
        Log([entry(6, 2)], SnapshotMeta(Index(5), Term(2), 50)).slice(Index(5), 1)


def test_a_log_after_a_boundary() -> None:
    """The seam for snapshots: the boundary matches, what lies below is not known."""
    log = Log([entry(6, 2)], SnapshotMeta(Index(5), Term(2), 50))
    assert (log.last_index, log.last_term) == (6, 2)
    assert log.matches(Index(5), Term(2))
    assert log.term_at(Index(4)) is None
    assert log.last_at_or_below(Index(3), Term(9)) == 5
    assert Log([], log.boundary).last_time_ms == 50


@pytest.mark.parametrize("voters", range(1, 8))
def test_two_majorities_share_a_voter(voters: int) -> None:
    everyone = range(voters)
    majorities = list(combinations(everyone, majority(voters)))
    assert all(set(one) & set(other) for one in majorities for other in majorities)
    if voters > 1:
        smaller = list(combinations(everyone, majority(voters) - 1))
        assert any(not set(one) & set(other) for one in smaller for other in smaller)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=7))
def test_majority_value_is_what_a_majority_has_reached(values: list[int]) -> None:
    reached = [v for v in values if sum(each >= v for each in values) > len(values) / 2]
    assert majority_value(values) == max(reached)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_tally_against_brute_force(size: int) -> None:
    """Lost: even if all who are silent say yes, it isn't enough. Strangers don't count."""
    voters = Membership.of(*(f"n{i}" for i in range(size))).voters
    for answers in product([None, True, False], repeat=size):
        votes = {voter: answer for voter, answer in zip(voters, answers, strict=True) if answer is not None}
        votes[NodeId("stranger")] = True
        yes, no = answers.count(True), answers.count(False)
        expected = VoteResult.PENDING
        if yes * 2 > size:
            expected = VoteResult.WON
        elif (size - no) * 2 <= size:
            expected = VoteResult.LOST
        assert tally(voters, votes) is expected


def test_membership_is_sorted_and_unique() -> None:
    assert Membership.of("b", "a", "b").voters == ("a", "b")
    for bad in ((NodeId("b"), NodeId("a")), (NodeId("a"), NodeId("a"))):
        with pytest.raises(ValueError, match="sorted and without duplicates"):
            Membership(bad)


def test_a_compacted_log_keeps_what_follows() -> None:
    log = Log([Entry(Index(i), Term(t), EntryKind.BATCH, 10 * i, b"") for i, t in enumerate((1, 1, 2, 2), 1)])
    log.compact(Index(3))
    assert log.boundary == SnapshotMeta(Index(3), Term(2), 30)
    assert (log.last_index, log.last_term, log.last_time_ms) == (4, 2, 40)
    assert [log.term_at(Index(index)) for index in (2, 3, 4, 5)] == [None, 2, 2, None]
    assert [each.index for each in log.slice(Index(4), 1 << 20)] == [4]
    log.compact(Index(4))
    assert (log.last_index, log.last_term, log.last_time_ms) == (4, 2, 40)
    log.append(entry(5, 2))


def test_a_reset_log_begins_after_the_snapshot() -> None:
    log = Log([entry(1, 1), entry(2, 1)])
    log.reset(SnapshotMeta(Index(7), Term(3), 70))
    assert (log.last_index, log.last_term, log.last_time_ms) == (7, 3, 70)
    assert not log.is_up_to_date(Index(9), Term(2))
    log.append(entry(8, 3))
    assert log.last_at_or_below(Index(20), Term(9)) == 8
    assert log.last_at_or_below(Index(3), Term(1)) == 7
