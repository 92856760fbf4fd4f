"""Seeds of the simulator: they pass, they are reproducible, and they get to every kind of fault."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from click.testing import CliRunner

from raftkv.cli import main
from raftkv.sim import Report, play
from raftkv.sim.many import play_all
from raftkv.sim.probes import PROBES, missed

SEEDS = 100
RARE = {  # what a hundred seeds may miss; a thousand don't
    "snapshot overtaken by one installed",
    "snapshot agreed with the log",
    "snapshot of second generation",
    "snapshot found damaged",
    "older snapshot used",
    "log used without its snapshot",
    "stale-term stream refused",
    "snapshot not written",
    "stream cut in the middle",
}
DIGESTS = "from raftkv.sim import play; print([play(seed).digest for seed in (3, 7, 16)])"


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return list(play_all(0, SEEDS))


def test_no_seed_fails(reports: list[Report]) -> None:
    failed = [report for report in reports if report.failure is not None]
    assert not failed, "\n\n".join(f"seed {r.seed}: {r.failure}\n{r.story}" for r in failed[:3])


def test_every_rare_path_is_taken(reports: list[Report]) -> None:
    hits = Counter[str]()
    for report in reports:
        hits.update(report.probes)
    assert set(missed(hits)) <= RARE
    assert set(PROBES) >= RARE


def test_every_probe_that_is_counted_has_a_name(reports: list[Report]) -> None:
    """... so that none is counted under a name that nobody looks for."""
    assert {probe for report in reports for probe in report.probes} <= set(PROBES)


def test_every_size_is_drawn(reports: list[Report]) -> None:
    assert {report.size for report in reports} == set(range(1, 8))


def test_clients_are_served(reports: list[Report]) -> None:
    """A cluster that does nothing is safe too."""
    assert all(report.outcomes["ok"] for report in reports)
    outcomes = Counter[str]()
    for report in reports:
        outcomes.update(report.outcomes)
    assert outcomes["ok"] > sum(outcomes.values()) / 4
    assert outcomes["unknown"]


def test_a_seed_gives_the_same_trace_in_any_process() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
    assert play(3).digest in digests.pop()


def test_seeds_differ(reports: list[Report]) -> None:
    assert len({report.digest for report in reports}) == SEEDS


def test_the_command_reports_and_succeeds() -> None:
    done = CliRunner().invoke(main, ["simulate", "--seeds", "2", "--from", "5", "--jobs", "1"])
    assert done.exit_code == 0
    assert done.stdout.startswith("2 seeds, 0 failed; ")
