"""A nemesis that can't fail is worth nothing: with a planted bug it does, without it doesn't."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftkv.server.driver import Driver
from tests.nemesis.__main__ import in_a_row
from tests.nemesis.plan import Kind
from tests.nemesis.planted import NAMES, planted
from tests.nemesis.round import BY_CLIENTS, Settings, play

READS = (
    "reads-without-readindex",
    "reads-without-a-vote",
    "reads-by-no-lease",
)  # those that break the reads of a driver


def settings(directory: Path, plant: str | None) -> Settings:
    return Settings(directory, 1, 3, in_namespaces=False, abilities=frozenset(), clients=8, plant=plant)


@pytest.mark.cluster
def test_a_planted_bug_is_found(tmp_path: Path) -> None:
    windows = [in_a_row((Kind.ISOLATE,))]
    said: list[str] = []
    report = asyncio.run(play(settings(tmp_path, "reads-without-readindex"), windows, said.append))
    assert any(violation.startswith(BY_CLIENTS) for violation in report.violations), report
    assert (tmp_path / "picture.html").exists()


@pytest.mark.cluster
def test_without_it_nothing_is(tmp_path: Path) -> None:
    windows = [in_a_row((Kind.ISOLATE,))]
    said: list[str] = []
    report = asyncio.run(play(settings(tmp_path, None), windows, said.append))
    assert report.violations == []
    assert report.operations["put", "ok"] > 0
    assert report.faults == {"isolate": 1}
    assert all(report.workloads[what] for what in ("transactions done", "locks granted", "events watched"))
    assert len(report.recoveries_s) == len(said) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_is_taken_out_again(name: str) -> None:
    before = Driver.__dict__["barrier"]
    with planted(name):
        assert (Driver.__dict__["barrier"] is not before) == (name in READS)
    assert Driver.__dict__["barrier"] is before
