"""Virtual time, one source of chance, and the events in between. Knows nothing of what is simulated.

Time is in milliseconds from 0 and moves only from event to event. Events of one moment happen in the order in
which they were scheduled.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random

from raftkv.sim.trace import Trace

Call = Callable[[], None]


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_ms = 0.0
        self.events = 0
        self.trace = Trace()
        self.probes: Counter[str] = Counter()  # how often each rare path was taken (probes.py)
        self._heap: list[tuple[float, int, Call]] = []
        self._scheduled = 0

    def at(self, at_ms: float, call: Call) -> None:
        """Let ``call`` happen at ``at_ms``, or now if that has passed. There is no way to take it back: who
        may change its mind looks again when it is called.
        """
        self._scheduled += 1
        heapq.heappush(self._heap, (max(at_ms, self.now_ms), self._scheduled, call))

    def after(self, delay_ms: float, call: Call) -> None:
        self.at(self.now_ms + delay_ms, call)

    def note(self, line: str) -> None:
        """A line of the trace."""
        self.trace.add(f"{self.now_ms:.3f} {line}")

    def run(self, until_ms: float) -> None:
        """Everything that happens up to ``until_ms``; it is ``until_ms`` afterwards."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_ms:
            self.now_ms, _, call = pop(heap)
            self.events += 1
            call()
        self.now_ms = until_ms
