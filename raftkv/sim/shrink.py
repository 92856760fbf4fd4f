"""Fewer faults that fail the same way: what is left out didn't matter, and the trace gets readable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raftkv.sim.run import Report, play

MAX_RUNS = 200

Only = frozenset[int]
"""Numbers of the strikes that a run is left with."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    report: Report  # of the run with the fewest faults
    before: int  # strikes that had happened when it failed first
    runs: int  # what finding it took


def shrink(
    report: Report, max_runs: int = MAX_RUNS, play_only: Callable[[int, Only], Report] = play
) -> Shrunk:
    """Leave out ever smaller groups of a failing run's faults, as long as it fails by the same exception
    (Zeller and Hildebrandt's ddmin, 2002, without its subsets). Faults that came after the failure go first.
    """
    best, runs = report, 0
    size = max(1, len(report.strikes) // 2)
    while runs < max_runs and best.strikes:
        smaller = None
        for chosen in _without_each(best.strikes, size):
            if runs >= max_runs:
                break
            runs += 1
            tried = play_only(report.seed, frozenset(chosen))
            if _kind(tried) == _kind(report) and len(tried.strikes) < len(best.strikes):
                smaller = tried
                break
        if smaller is not None:
            best = smaller
            size = min(size, max(1, len(best.strikes) // 2))
        elif size == 1:
            break
        else:
            size //= 2
    return Shrunk(best, len(report.strikes), runs)


def _without_each(strikes: Sequence[int], size: int) -> list[list[int]]:
    """``strikes`` without its first ``size``, without the next ``size`` ... NB: late ones first; they matter
    least."""
    starts = range(0, len(strikes), size)
    return [[*strikes[:start], *strikes[start + size :]] for start in reversed(starts)]


def _kind(report: Report) -> str | None:
    """The exception that ended it: texts hold indexes and names, which differ."""
    return None if report.failure is None else report.failure.partition(":")[0]
