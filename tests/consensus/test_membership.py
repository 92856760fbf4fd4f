"""Memberships as values: their bytes, where logs change them, what changes make of them, majorities."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.membership import (
    MAX_MEMBERS,
    Configurations,
    Refused,
    changed,
    decode_membership,
    encode_membership,
    joint,
    left,
)
from raftkv.consensus.quorum import VoteResult, joint_result, joint_value, majority, tally
from raftkv.consensus.types import (
    NOBODY,
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
    Term,
)
from tests.consensus.members import check_step, membership_text
from tests.wire.strategies import memberships

N1, N2, N3, N4, N5 = (NodeId(f"n{i}") for i in range(1, 6))
THREE = Membership.of("n1", "n2", "n3", addresses={"n1": "a:1", "n2": "b:1", "n3": "c:1"})


# -- bytes -------------------------------------------------------------------------------------------------


def test_the_bytes_are_what_they_are() -> None:
    membership = Membership(
        (N1, N4), (N1, N2), (Learner(N3, True, N2), Learner(N5)), ((N1, "h:1"), (N4, "i:2"))
    )
    data = b"""membership 1
voters n1 n4
outgoing n1 n2
learner n3 promote n2
learner n5 stay
address n1 h:1
address n4 i:2"""
    assert encode_membership(membership) == data
    assert decode_membership(data) == membership
    assert encode_membership(NOBODY) == b"membership 1\nvoters"


@given(memberships())
def test_every_membership_survives(membership: Membership) -> None:
    assert decode_membership(encode_membership(membership)) == membership


@given(
    st.binary(max_size=60)
    | st.text("membership 1\nvoters n1 n2outgoing- learner promote", max_size=60).map(str.encode)
)
def test_the_decoder_is_total(data: bytes) -> None:
    try:
        membership = decode_membership(data)
    except ValueError:
        return
    assert encode_membership(membership) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"membership 2\nvoters n1",
        b"membership 1",
        b"membership 1\nvoters n1\n",
        b"membership 1\nvoters n2 n1",
        b"membership 1\nvoters n1 n1",
        b"membership 1\nvoters n1  n2",
        b"membership 1\nvoters n1\nvoters n1",
        b"membership 1\noutgoing n1\nvoters n1",
        b"membership 1\nvoters\noutgoing n1",
        b"membership 1\nvoters n1\noutgoing",
        b"membership 1\nvoters n1\nlearner n1 stay",
        b"membership 1\nvoters n1\nlearner n2 stays",
        b"membership 1\nvoters n1\nlearner n2 stay n1 n1",
        b"membership 1\nvoters n1\naddress n2 h:1",
        b"membership 1\nvoters n1\naddress n1 ",
        b"membership 1\nvoters n1\naddress n1 h:1 i:1",
        b"membership 1\nvoters n1\naddress n1 " + b"h" * 263,
        b"membership 1\nvoters n1\naddress n1 h:1\naddress n1 h:1",
        b"membership 1\nvoters n/1",
        b"membership 1\nvoters " + b"n" * 65,
        b"membership 1\nvoters n1\xff",
        b"membership 1\nvoters " + b" ".join(b"n%03d" % i for i in range(MAX_MEMBERS + 1)),
    ],
)
def test_what_is_no_membership(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_membership(data)


# -- in a log ----------------------------------------------------------------------------------------------


def config(index: int, *voters: str) -> Entry:
    return Entry(Index(index), Term(1), EntryKind.CONFIG, 0, encode_membership(Membership.of(*voters)))


def test_which_is_in_force_where() -> None:
    batch = Entry(Index(6), Term(1), EntryKind.BATCH, 0, encode_membership(NOBODY))
    known = Configurations(THREE, Index(3), [config(5, "n1", "n2"), batch, config(7, "n1")])
    assert [known.at(Index(i)).voters for i in (3, 4, 5, 6, 7, 8)] == [
        THREE.voters, THREE.voters, (N1, N2), (N1, N2), (N1,), (N1,),
    ]  # fmt: skip
    assert (known.since, known.current.voters) == (7, (N1,))
    assert [each.voters for each in known.from_index(Index(6))] == [(N1, N2), (N1,)]
    known.cut(Index(7))
    assert (known.since, known.current.voters) == (5, (N1, N2))
    known.add([config(7, "n2")])
    known.forget(Index(4))
    assert known.at(Index(4)) == THREE
    known.forget(Index(5))
    assert known.at(Index(6)).voters == (N1, N2)
    with pytest.raises(InvariantBroken, match="forgotten"):
        known.at(Index(4))
    known.forget(Index(9))
    known.cut(Index(1))
    assert known.current.voters == (N2,), "the last one stays: it is below the log"


def test_an_entry_that_holds_no_membership_stops_the_node() -> None:
    with pytest.raises(InvariantBroken, match="entry 4 holds no membership"):
        Configurations(THREE, Index(3), [Entry(Index(4), Term(1), EntryKind.CONFIG, 0, b"?")])


# -- changes -----------------------------------------------------------------------------------------------

LEARNING = Membership(THREE.voters, (), (Learner(N4, True, N3),), (*THREE.addresses, (N4, "d:1")))


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        (THREE, AddLearner(N4, "d:1", False), "{n1 n2 n3 +n4}"),
        (THREE, AddLearner(N4, "d:1", True, N3), "{n1 n2 n3 +n4!n3}"),
        (THREE, AddLearner(N3, "c:1"), "{n1 n2 n3}"),
        (THREE, AddLearner(N3, "c:1", True, N5), "{n1 n2 n3}"),  # it was replaced already
        (LEARNING, AddLearner(N4, "d:1", True, N3), "{n1 n2 n3 +n4!n3}"),
        (LEARNING, AddLearner(N4, "d:1", False), "{n1 n2 n3 +n4}"),
        (LEARNING, Promote(N4), "{n1 n2 n4}"),
        (THREE, Promote(N3), "{n1 n2 n3}"),
        (LEARNING, Remove(N3), "{n1 n2 +n4!}"),
        (LEARNING, Remove(N4), "{n1 n2 n3}"),
        (THREE, Remove(N5), "{n1 n2 n3}"),
        (THREE, Move(N2, "x:9"), "{n1 n2 n3}"),
    ],
)
def test_what_changes_make(before: Membership, change: Change, after: str) -> None:
    made = changed(before, change)
    assert membership_text(made).partition("}")[0] + "}" == after
    assert set(dict(made.addresses)) == set(made.members), "addresses come and go with their nodes"


def test_a_move_changes_one_address() -> None:
    assert dict(changed(THREE, Move(N2, "x:9")).addresses) == {"n1": "a:1", "n2": "x:9", "n3": "c:1"}
    assert changed(THREE, Move(N2, "b:1")) == THREE


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (AddLearner(N3, "x:9"), "n3 is a member already, with the address c:1"),
        (AddLearner(N3, "c:1", True, N2), "n3 can't replace n2"),
        (AddLearner(N4, "d:1", True, N4), "n4 can't replace n4"),
        (AddLearner(N4, "d:1", True, N5), "n5 can't be replaced: it doesn't vote"),
        (Promote(N4), "n4 is no member; add it first"),
        (Move(N4, "d:1"), "n4 is no member"),
    ],
)
def test_changes_that_cannot_be(change: Change, why: str) -> None:
    with pytest.raises(Refused, match=why):
        changed(THREE, change)


def test_the_last_voter_stays() -> None:
    with pytest.raises(Refused, match="the last voter"):
        changed(Membership.of("n1"), Remove(N1))


def test_a_cluster_has_a_largest_size() -> None:
    full = Membership.of(*(f"m{i}" for i in range(MAX_MEMBERS)))
    with pytest.raises(Refused, match="at most 64"):
        changed(full, AddLearner(N1, "a:1"))


@given(
    memberships(st.sampled_from(["n1", "n2", "n3", "n4"])),
    st.sampled_from(["n1", "n2", "n3", "n4", "n5"]),
    st.data(),
)
def test_any_change_is_two_sound_steps(current: Membership, name: str, data: st.DataObject) -> None:
    """Against the rules of what may follow on what; and asking again for what is done changes nothing."""
    node = NodeId(name)
    replaces = data.draw(st.sampled_from([None, N1, N2]))
    kinds: list[Change] = [
        AddLearner(node, "x:1", True, replaces),
        Promote(node),
        Remove(node),
        Move(node, "y:1"),
    ]
    change = data.draw(st.sampled_from(kinds))
    if current.is_joint or not current.voters:
        return
    try:
        target = changed(current, change)
    except Refused:
        return
    first = joint(current, target)
    check_step(current, first)
    if first.is_joint:
        check_step(first, left(first))
        assert left(first) == target
    else:
        assert first == target
    assert changed(target, change) == target


# -- majorities of both halves -----------------------------------------------------------------------------

HALVES = [
    ((N1, N2, N3),),
    ((N1, N2, N4), (N1, N2, N3)),
    ((N4,), (N1, N2, N3)),
    ((N1, N2), (N1,)),
    ((N4, N5), (N1,)),
]


@pytest.mark.parametrize("halves", HALVES)
def test_joint_votes_against_brute_force(halves: tuple[tuple[NodeId, ...], ...]) -> None:
    nodes = (N1, N2, N3, N4, N5)
    for answers in product((True, False, None), repeat=len(nodes)):
        votes = {node: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}
        result = joint_result(tally(half, votes) for half in halves)
        granted = [sum(votes.get(voter) is True for voter in half) for half in halves]
        possible = [sum(votes.get(voter) is not False for voter in half) for half in halves]
        needed = [majority(len(half)) for half in halves]
        won = all(has >= need for has, need in zip(granted, needed, strict=True))
        lost = any(has < need for has, need in zip(possible, needed, strict=True))
        assert result is (VoteResult.WON if won else VoteResult.LOST if lost else VoteResult.PENDING)


@pytest.mark.parametrize("halves", HALVES)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_joint_values_against_brute_force(halves: tuple[tuple[NodeId, ...], ...], numbers: list[int]) -> None:
    values = dict(zip((N1, N2, N3, N4, N5), numbers, strict=True))

    def reached(value: int) -> bool:
        return all(sum(values[each] >= value for each in half) >= majority(len(half)) for half in halves)

    assert joint_value(halves, values) == max(value for value in range(5) if reached(value))
