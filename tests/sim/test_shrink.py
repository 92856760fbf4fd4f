"""A failure with fewer faults: still the same failure, and nothing left that could go."""

from __future__ import annotations

from click.testing import CliRunner

from raftkv.cli import main
from raftkv.sim import Report, play
from raftkv.sim.ablation import ABLATIONS, hunt
from raftkv.sim.shrink import shrink


def report(strikes: tuple[int, ...], failure: str | None) -> Report:
    return Report(0, failure, "", 0, 0.0, 0, {}, 3, strikes)


def fails_with(*needed: int, total: int = 40, failure: str = "Broken: by {}") -> tuple[Report, list[int]]:
    """What shrinking makes of a run that fails whenever the ``needed`` faults strike; sizes it tried."""
    tried: list[int] = []

    def play_only(seed: int, only: frozenset[int]) -> Report:
        tried.append(len(only))
        strikes = tuple(sorted(only))
        return report(strikes, failure.format(strikes) if only >= set(needed) else None)

    every = tuple(range(1, total + 1))
    return shrink(report(every, failure.format(every)), play_only=play_only).report, tried


def test_only_the_faults_that_matter_are_left() -> None:
    for needed in ((), (1,), (40,), (7, 8), (3, 21, 40)):
        assert fails_with(*needed)[0].strikes == needed


def test_few_runs_are_enough() -> None:
    """The needed one among forty: a dozen runs or two, not forty."""
    for needed in range(1, 41):
        assert len(fails_with(needed)[1]) <= 25


def test_another_failure_is_not_the_same() -> None:
    def play_only(seed: int, only: frozenset[int]) -> Report:
        return report(tuple(sorted(only)), "Other: something else")

    assert shrink(report((1, 2), "Broken: a"), play_only=play_only).report.strikes == (1, 2)


def test_it_gives_up_after_its_runs() -> None:
    runs = []

    def play_only(seed: int, only: frozenset[int]) -> Report:
        runs.append(only)
        return report(tuple(sorted(only)), None)

    shrunk = shrink(report(tuple(range(100)), "Broken: a"), max_runs=10, play_only=play_only)
    assert len(runs) == shrunk.runs == 10
    assert len(shrunk.report.strikes) == shrunk.before == 100


def test_a_run_keeps_its_faults_when_others_are_left_out() -> None:
    whole = play(2)
    kept = whole.strikes[::3]
    assert 0 < len(kept) < len(whole.strikes)
    fewer = play(2, frozenset(kept))
    assert set(fewer.schedule) <= set(whole.schedule)
    assert set(fewer.strikes) <= set(kept)


def test_the_command_shows_the_faults_that_are_enough() -> None:
    """... and with them alone the seed fails again."""
    ablation = next(each for each in ABLATIONS if each.name == "follower commits its unchecked tail")
    first, strikes = 0, 0
    while strikes < 5:  # one with something to leave out
        report = hunt(ablation, 60, first).report
        assert report is not None
        first, strikes = report.seed + 1, len(report.strikes)
    seed = ["simulate", "--seeds", "1", "--from", str(first - 1), "--jobs", "1"]
    with ablation.applied():
        done = CliRunner().invoke(main, seed)
        assert done.exit_code == 1
        line = next(line for line in done.stdout.splitlines() if "--only" in line)
        numbers = line.partition("--only '")[2].rstrip("'")
        assert len(numbers.split(",")) < strikes
        assert CliRunner().invoke(main, [*seed, "--only", numbers]).exit_code == 1


def test_only_is_for_one_seed() -> None:
    assert CliRunner().invoke(main, ["simulate", "--only", "1"]).exit_code == 2
    assert CliRunner().invoke(main, ["simulate", "--seeds", "1", "--only", "one"]).exit_code == 2
