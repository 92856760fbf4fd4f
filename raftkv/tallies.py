"""What a node counts of itself while it works: how many of what size, or how long. Pure: who counts knows the
time.

A tally is what Prometheus calls a histogram, at a tenth of its library's cost for an observation: they stand
on the hot path. They are observed once a batch, a turn or an fsync; only requests are observed one by one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COMMANDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class Tally:
    """``counts[i]``: how many values were at most ``bounds[i]`` and above the bound before; the last one:
    above all. To be observed on one thread; read on any, where it may be a value behind.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Iterable[float]) -> None:
        """``bounds``: in ascending order."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def seconds() -> Tally:
    """A tally of times, from a tenth of a millisecond to five seconds."""
    return Tally(_SECONDS)


def commands() -> Tally:
    """A tally of how many commands there were."""
    return Tally(_COMMANDS)


@dataclass(slots=True)
class Tallies:
    """Of one node, since it started."""

    requests: defaultdict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(seconds))
    """Answered in one piece, by method and route: until the answer was made. Those that wait (long polls,
    places in a queue) are in it with all their waiting.
    """
    errors: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Answered with a problem, by its code."""
    batch: Tally = field(default_factory=commands)
    """Commands of this node's clients in a batch."""
    commit: Tally = field(default_factory=seconds)
    """From a batch's making until it was applied on this node, which is when its clients are answered."""
    apply: Tally = field(default_factory=seconds)
    """A turn's committed entries, applied."""
    turn: Tally = field(default_factory=seconds)
    """A whole turn: so long the event loop does nothing else."""
    fsync: Tally = field(default_factory=seconds)
    loop_late: Tally = field(default_factory=seconds)
    """How much later than asked for a timer of the event loop came."""
    gc_pause: Tally = field(default_factory=seconds)
    """The garbage collector's passes; everything stands still."""
    elections: int = 0
    """That this node began."""
    leader_changes: int = 0
    """That it saw."""
