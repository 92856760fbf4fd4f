"""What scripts/bench --against measures, and what it says of it."""

from __future__ import annotations

import argparse
import shutil
from itertools import groupby

import pytest
from cases import GOALS, Case, Figures, Run, all_cases
from floors import Floors
from harness import DrillError
from stores import STAGES
from versus import chosen
from versus_report import goals, tables

FLOORS = Floors(fdatasync_ms=0.3, websocket_ms=0.2, http_ms=0.25)
HALF, FIVE = Case("half", 64), Case("put", 64, stage="nodes")


def options(cases: str = "", *, only_goals: bool = False) -> argparse.Namespace:
    return argparse.Namespace(cases=cases, only_goals=only_goals, write=False)


@pytest.fixture(autouse=True)
def every_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


def run(per_second: float, p50_ms: float = 1.0, p99_ms: float = 2.0) -> Run:
    return Run(per_second, p50_ms, p99_ms, 0)


def test_one_run_measures_every_goal() -> None:
    assert {goal.case for goal in GOALS} <= set(chosen(options()))


def test_names_tell_cases_apart() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))


def test_only_goals_measures_each_once_and_nothing_else() -> None:
    cases = chosen(options(only_goals=True))
    assert set(cases) == {goal.case for goal in GOALS}
    assert len(cases) == len(set(cases))


def test_a_stage_and_a_size_come_once() -> None:
    """So that clusters are started, and stores filled, once."""
    cases = chosen(options())
    assert [stage for stage, _ in groupby(cases, lambda case: case.stage)] == list(STAGES)
    places = [place for place, _ in groupby(cases, lambda case: (case.stage, case.value_bytes))]
    assert len(places) == len(set(places))


def test_a_pattern_chooses_and_one_that_finds_nothing_says_what_there_is() -> None:
    assert chosen(options("five nodes$")) == [FIVE]
    with pytest.raises(DrillError, match="PUT, 64, leader; five nodes"):
        chosen(options("six nodes"))


def test_goals_are_met_or_missed_by_the_medians() -> None:
    runs = {
        (HALF, "raftkv"): [run(1000, 1.0, 4.0), run(1000, 1.0, 9.0), run(1000, 1.0, 4.0)],
        (HALF, "etcd"): [run(500), run(500), run(500)],
        (FIVE, "raftkv"): [run(500), run(100), run(550)],
        (FIVE, "three"): [run(1000), run(1000), run(1000)],
    }
    assert goals(Figures(runs, FLOORS)).splitlines()[2:] == [
        "| PUT at half load: five times the p50 by the p99 | 1 | 1.25 | met |",
        "| PUT, 64 connections: five nodes by three | 0.6 | 0.50 | **missed** |",
    ]


def test_raftkv_against_itself_has_a_table_of_its_own() -> None:
    runs = {
        (HALF, "raftkv"): [run(1000)],
        (HALF, "etcd"): [run(500)],
        (FIVE, "raftkv"): [run(600)],
        (FIVE, "three"): [run(800)],
    }
    assert tables(Figures(runs, FLOORS), [HALF, FIVE]) == (
        "| case | raftkv/s | p50, p99 ms | etcd gateway/s | p50, p99 ms | ratio |\n"
        "|---|---:|---:|---:|---:|---:|\n"
        "| PUT at half load, 64, leader | 1,000 | 1.00, 2.00 | 500 | 1.00, 2.00 | **2.00** |\n"
        "\n"
        "| case | raftkv/s | p50, p99 ms | three nodes/s | p50, p99 ms | ratio |\n"
        "|---|---:|---:|---:|---:|---:|\n"
        "| PUT, 64, leader; five nodes | 600 | 1.00, 2.00 | 800 | 1.00, 2.00 | **0.75** |\n"
    )
