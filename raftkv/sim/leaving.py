"""A node that was told to stop, as ``server/app.py`` does it: hands over, answers who waits, ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from raftkv.errors import RaftkvError, TimedOut
from raftkv.sim.plan import Plan
from raftkv.sim.world import Call, World

if TYPE_CHECKING:
    from raftkv.sim.server import SimServer

DRAIN_TIMEOUTS = 0.5  # of the longest election timeout: how long it waits for requests to be answered
LOOK_MS = 5.0


@dataclass(frozen=True, slots=True)
class Handover:
    """The ticket of a wish that another node lead; ``then`` hears its answer."""

    then: Callable[[object], None]


class Leaving:
    """The rest of a process's life. Each step is taken in the server's own life and clock, or not at all."""

    def __init__(self, server: SimServer, world: World, plan: Plan) -> None:
        self._server = server
        self._world = world
        self._timing = plan.timing
        self._until_ms = 0.0  # by the server's clock

    def begin(self) -> None:
        self._world.note(f"{self._server.name} is told to stop")
        self._hand_over(self._close_the_door)

    def _hand_over(self, then: Call) -> None:
        self._until_ms = self._server.clock_ms + self._timing.election_timeout_min_ms
        self._try_to_hand_over(then)

    def _try_to_hand_over(self, then: Call) -> None:
        server = self._server
        left_ms = self._until_ms - server.clock_ms
        if server.leads and left_ms > 0:
            server.transfer(None, Handover(partial(self._heard, then)), left_ms)
        else:
            then()

    def _heard(self, then: Call, answer: object) -> None:
        """Within a turn of the server: what follows comes after it."""
        gives_up = isinstance(answer, RaftkvError) and not isinstance(answer, TimedOut)
        self._server.later(0.0, then if gives_up else partial(self._try_to_hand_over, then))

    def _close_the_door(self) -> None:
        self._server.door_is_open = False
        self._until_ms = self._server.clock_ms + DRAIN_TIMEOUTS * self._timing.election_timeout_max_ms
        self._drain()

    def _drain(self) -> None:
        if self._server.has_waiting and self._server.clock_ms < self._until_ms:
            self._server.later(LOOK_MS, self._drain)
        else:
            self._hand_over(self._end)

    def _end(self) -> None:
        waiting = "with requests waiting" if self._server.has_waiting else "in order"
        self._world.probes[f"stopped {waiting}"] += 1
        self._server.stop()
