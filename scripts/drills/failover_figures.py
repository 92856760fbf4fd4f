"""What a round of scripts/failover says, and what it ought to. Pure.

*Resumed*: from the event's begin to the first acknowledgement of a write *sent after* it: an answer that was
already under way when the leader died counts for nothing. *Gap*: the longest time between an acknowledgement
that came after the event's begin and the one before it. What the machine alone makes of both, while nothing
happens, is seen before the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from load import Ack

BIN_S = 0.01
BEFORE_S, AFTER_S = 0.5, 2.0  # of the event's begin: what is plotted
BINS = round((BEFORE_S + AFTER_S) / BIN_S)


@dataclass(frozen=True, slots=True)
class Round:
    """``before_ms``, ``before_gap_ms``: the median latency of writes, and the longest gap, in ``BEFORE_S``
    before the event. ``per_bin``: acknowledgements, from ``BEFORE_S`` before the event to ``AFTER_S`` after.
    """

    resumed_ms: float
    gap_ms: float
    before_ms: float
    before_gap_ms: float
    slowest_ms: float
    acked: int
    failures: Mapping[str, str]
    broken: tuple[str, ...]  # by survivor, where something is lost or there twice
    per_bin: tuple[int, ...]


def make_round(
    acks: Sequence[Ack],
    failures: Mapping[str, str],
    broken: Sequence[str],
    *,
    began_at: float,
    struck_at: float,
) -> Round:
    """The event happened between ``began_at`` and ``struck_at``; writes were acknowledged that were sent
    before, and after.
    """
    times = [ack.acked_at for ack in acks]
    before_at = began_at - BEFORE_S
    return Round(
        resumed_ms=(min(ack.acked_at for ack in acks if ack.sent_at >= struck_at) - began_at) * 1e3,
        gap_ms=longest_gap_s(times, began_at) * 1e3,
        before_ms=median(ack.latency_s for ack in acks if before_at <= ack.acked_at < began_at) * 1e3,
        before_gap_ms=longest_gap_s([at for at in times if at < began_at], before_at) * 1e3,
        slowest_ms=max(ack.latency_s for ack in acks) * 1e3,
        acked=len(acks),
        failures=dict(failures),
        broken=tuple(broken),
        per_bin=bins([at - began_at for at in times]),
    )


def longest_gap_s(times: Sequence[float], since: float) -> float:
    """Between two of ``times`` that follow each other, the later one after ``since``; 0: there are none."""
    return max((later - earlier for earlier, later in pairwise(sorted(times)) if later > since), default=0.0)


def bins(times_s: Sequence[float]) -> tuple[int, ...]:
    """How many fall into each bin; times are from the event's begin, those beyond the bins are left out."""
    counts = [0] * BINS
    for time_s in times_s:
        place = int((time_s + BEFORE_S) // BIN_S)
        if 0 <= place < BINS:
            counts[place] += 1
    return tuple(counts)


Rounds = Mapping[tuple[str, str], Sequence[Round]]
"""By (event, store)."""


@dataclass(frozen=True, slots=True)
class Goal:
    """``found`` of all of raftkv's rounds of the event is to be ``most`` at most."""

    name: str
    event: str
    most: float
    found: Callable[[Sequence[Round]], float]

    def met(self, rounds: Sequence[Round]) -> bool:
        return self.found(rounds) <= self.most


def resumed_ms(rounds: Sequence[Round]) -> float:
    return median(each.resumed_ms for each in rounds)


def worst_resumed_ms(rounds: Sequence[Round]) -> float:
    return max(each.resumed_ms for each in rounds)


def gap_ms(rounds: Sequence[Round]) -> float:
    return median(each.gap_ms for each in rounds)


def failed(rounds: Sequence[Round]) -> int:
    return sum(len(each.failures) for each in rounds)


GOALS = (
    Goal("kill -9: next acknowledged write, median ms", "kill", 50, resumed_ms),
    Goal("kill -9: next acknowledged write, worst ms", "kill", 400, worst_resumed_ms),
    Goal("kill -9: failed requests", "kill", 0, failed),
    Goal("SIGTERM: next acknowledged write, median ms", "term", 15, resumed_ms),
    # The leader may well acknowledge a write before it has handed over; the gap is what that costs.
    Goal("SIGTERM: longest gap, median ms", "term", 15, gap_ms),
    Goal("SIGSTOP: next acknowledged write, median ms", "stop", 700, resumed_ms),
    Goal("silent partition: next acknowledged write, median ms", "partition", 700, resumed_ms),
)
