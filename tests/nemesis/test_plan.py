"""The plan: the same seed gives the same, and nothing that can't be done is asked for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.nemesis.plan import (
    COPIES,
    GAP_S,
    LASTS_S,
    MEMBERS,
    NEEDS,
    NETWORK,
    Ability,
    Fault,
    Kind,
    Planner,
    Window,
)

ALL = frozenset(Ability)


def drawn(seed: int, nodes: int = 5, rounds: int = 6, abilities: frozenset[Ability] = ALL) -> list[Window]:
    planner = Planner(seed)
    return [window for _ in range(rounds) for window in planner.round(nodes, 60.0, abilities)]


def faults(windows: list[Window]) -> list[Fault]:
    return [fault for window in windows for fault in window.faults]


def test_a_seed_is_a_schedule() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_every_kind_comes_before_any_comes_again() -> None:
    deck = len(Kind) + sum(copies - 1 for copies in COPIES.values())
    dealt = [fault.kind for fault in faults(drawn(3))][:deck]
    assert len(dealt) == deck
    assert set(dealt) == set(Kind)
    assert {kind: dealt.count(kind) for kind in COPIES} == COPIES


@pytest.mark.parametrize("nodes", [3, 5])
def test_ranks_are_of_the_cluster(nodes: int) -> None:
    counts = {
        Kind.KILL_ALL: {nodes},
        Kind.ROLLING: {nodes},
        Kind.PAUSE_MAJORITY: {nodes // 2 + 1},
        Kind.SPLIT: {nodes // 2},
        Kind.BRIDGE: {nodes // 2},
        Kind.CUT_PAIR: {2},
        Kind.ONE_WAY: {2},
        Kind.STORM: set(range(2, nodes + 1)),
    }
    for fault in faults(drawn(4, nodes, rounds=20)):
        assert set(fault.ranks) <= set(range(nodes))
        assert len(set(fault.ranks)) == len(fault.ranks)
        assert len(fault.ranks) in counts.get(fault.kind, {1})


def test_three_nodes_have_no_bridge_and_five_do() -> None:
    assert Kind.BRIDGE not in {fault.kind for fault in faults(drawn(5, nodes=3))}
    assert Kind.BRIDGE in {fault.kind for fault in faults(drawn(5, nodes=5))}


def test_what_cannot_be_done_is_not_drawn_and_the_rest_is() -> None:
    kinds = {fault.kind for fault in faults(drawn(6, abilities=frozenset()))}
    assert kinds == set(Kind) - NEEDS.keys()


def test_a_kind_that_waited_for_its_cluster_comes_when_it_can() -> None:
    """Rounds of three and of five nodes take turns: the five must get their bridges."""
    planner = Planner(7)
    dealt = [planner.round(nodes, 60.0, ALL) for _ in range(6) for nodes in (3, 5)]
    assert any(fault.kind is Kind.BRIDGE for windows in dealt[1::2] for fault in faults(windows))


@pytest.mark.parametrize("abilities", [ALL, frozenset()])
def test_two_minutes_have_every_change_of_members(abilities: frozenset[Ability]) -> None:
    """As CI runs them: a round of three nodes, and one of five."""
    planner = Planner(1)
    windows = [window for nodes in (3, 5) for window in planner.round(nodes, 60.0, abilities)]
    assert {fault.kind for fault in faults(windows)} >= MEMBERS


def test_only_the_kinds_that_are_wanted_are_drawn() -> None:
    windows = Planner(12, MEMBERS).round(3, 60.0, ALL)
    assert {fault.kind for fault in faults(windows)} == MEMBERS
    windows = Planner(12, {Kind.BRIDGE}).round(3, 30.0, ALL)  # which three nodes don't have
    assert windows
    assert not faults(windows)


def test_times_keep_their_bounds() -> None:
    for window in drawn(8, rounds=10):
        starts = [fault.at_s for fault in window.faults]
        assert all(start < window.lasts_s for start in starts)
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        assert all(GAP_S[0] <= gap <= GAP_S[1] for gap in gaps)
        assert all(LASTS_S[0] <= fault.lasts_s <= LASTS_S[1] for fault in window.faults)


def test_some_faults_overlap() -> None:
    windows = drawn(9)
    pairs = [pair for window in windows for pair in pairwise(window.faults)]
    assert any(one.at_s + one.lasts_s > other.at_s for one, other in pairs)


def test_the_leader_is_hit_more_often_than_by_chance() -> None:
    hit = [fault.ranks[0] == 0 for fault in faults(drawn(10, rounds=30)) if fault.kind in NETWORK]
    assert sum(hit) > 1.5 * len(hit) / 5


def test_rounds_have_their_length() -> None:
    windows = Planner(11).round(3, 60.0, ALL)
    whole = sum(window.lasts_s + window.calm_s for window in windows)
    assert 60.0 <= whole < 60.0 + windows[-1].calm_s + 1e-6
