"""When which fault strikes, drawn before the run: so one can be left out and the others stay as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Strike:
    number: int  # from 1, by time
    at_ms: float
    kind: str  # of ``plan.FAULTS``
    seed: int  # of its own choices: whom it hits, how badly, for how long

    def __str__(self) -> str:
        return f"{self.at_ms:.3f} fault {self.number} {self.kind}"


def draw_schedule(
    random: Random, rates: Sequence[tuple[str, float]], duration_ms: float
) -> tuple[Strike, ...]:
    """``rates``: (kind, how many a second, on average). Strikes come in order of time."""
    drawn: list[tuple[float, str]] = []
    for kind, per_second in rates:
        at_ms = random.expovariate(per_second / 1000)
        while at_ms < duration_ms:
            drawn.append((at_ms, kind))
            at_ms += random.expovariate(per_second / 1000)
    drawn.sort()
    return tuple(
        Strike(number, at_ms, kind, random.getrandbits(32))
        for number, (at_ms, kind) in enumerate(drawn, start=1)
    )
