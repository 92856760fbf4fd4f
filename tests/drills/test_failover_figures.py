"""What a round says, and when a goal is met."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from failover_figures import (
    AFTER_S,
    BEFORE_S,
    BIN_S,
    BINS,
    GOALS,
    Goal,
    Round,
    bins,
    longest_gap_s,
    make_round,
)
from failover_report import goals, table
from load import Ack

BEGAN_AT = 100.0


def ack(sent_s: float, acked_s: float) -> Ack:
    """Seconds from the event's begin."""
    return Ack("key", "value", BEGAN_AT + sent_s, BEGAN_AT + acked_s)


def round_of(acks: Sequence[Ack], struck_s: float = 0.0) -> Round:
    return make_round(acks, {}, (), began_at=BEGAN_AT, struck_at=BEGAN_AT + struck_s)


def test_only_writes_sent_after_the_event_show_that_it_is_over() -> None:
    """One on its way when the leader died, and one sent while the partition was being made, say nothing."""
    acks = [ack(-0.2, -0.1), ack(-0.1, 0.02), ack(0.01, 0.03), ack(0.05, 0.3), ack(0.04, 0.2), ack(0.3, 0.4)]
    played = round_of(acks, struck_s=0.035)
    assert played.resumed_ms == pytest.approx(200)
    assert played.slowest_ms == pytest.approx(250)
    assert played.acked == 6


def test_the_longest_gap_may_begin_before_the_event_and_must_end_after_it() -> None:
    assert longest_gap_s([9.0, 1.0, 8.0, 5.0, 5.5], since=5.2) == 2.5
    assert longest_gap_s([1.0, 5.0, 5.5], since=3.0) == 4.0
    assert longest_gap_s([1.0, 5.0], since=5.0) == 0.0


def test_what_the_machine_does_before_the_event_is_told_apart() -> None:
    before = [ack(-0.9, -0.8), ack(-0.31, -0.3), ack(-0.28, -0.25), ack(-0.2, -0.1)]
    played = round_of([*before, ack(0.0, 0.5)])
    assert played.before_ms == pytest.approx(30)  # of 10, 30 and 100
    assert played.before_gap_ms == pytest.approx(500)  # it ends in the half second, and begins before it
    assert played.gap_ms == pytest.approx(600)


def test_bins_begin_before_the_event_and_leave_out_what_is_beyond_them() -> None:
    middle = round(BEFORE_S / BIN_S)
    times_s = [-BEFORE_S - 0.001, -BEFORE_S + 0.001, -0.001, 0.001, 0.009, AFTER_S - 0.001, AFTER_S + 0.001]
    counts = bins(times_s)
    assert len(counts) == BINS
    assert {place: count for place, count in enumerate(counts) if count} == {
        0: 1,
        middle - 1: 1,
        middle: 2,
        BINS - 1: 1,
    }


def made(resumed_ms: float, *failed: str) -> Round:
    return Round(resumed_ms, 14.0, 2.0, 3.0, 20.0, 100, dict.fromkeys(failed, "lost"), (), (0,) * BINS)


def goal(name: str) -> Goal:
    return next(each for each in GOALS if each.name.startswith(name))


def test_goals_of_kill() -> None:
    rounds = [made(10), made(50), made(400)]
    for name in ("kill -9: next acknowledged write, median", "kill -9: next acknowledged write, worst"):
        assert goal(name).met(rounds)
    assert not goal("kill -9: next acknowledged write, median").met([*rounds, made(51)])
    assert not goal("kill -9: next acknowledged write, worst").met([*rounds, made(401)])
    assert goal("kill -9: failed").met(rounds)
    assert not goal("kill -9: failed").met([*rounds, made(10, "key")])


def test_goals_are_of_raftkvs_rounds_of_the_events_that_were_played() -> None:
    rounds = {
        ("term", "etcd"): [made(9)],
        ("term", "raftkv"): [made(16)],
        ("partition", "raftkv"): [made(600), made(700)],
    }
    assert goals(rounds).splitlines()[2:] == [
        "| SIGTERM: next acknowledged write, median ms | 15 | 16.0 | **missed** |",
        "| SIGTERM: longest gap, median ms | 15 | 14.0 | met |",
        "| silent partition: next acknowledged write, median ms | 700 | 650.0 | met |",
    ]


def test_the_table_has_a_cell_for_each_heading() -> None:
    head, rule, row = table({("kill", "etcd"): [made(1000, "a", "b"), made(3000)]}).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row == "| kill -9 | etcd | 2 | **2,000** | 3,000 | 14 | 14 | 2 | 3 | 200 | 2 | 20 |"
