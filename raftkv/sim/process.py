"""A process in virtual time: its lives, its clock, its pauses. Knows nothing of what it does while it lives.

A call scheduled for a process happens only if that process still lives then; while it is paused such calls
wait. A process's own clock runs at its own rate from its own start.
"""

from __future__ import annotations

from functools import partial

from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.sim.world import Call, World
from raftkv.storage.segment import EXIT_DISK


class Process:
    """Its files outlive it."""

    def __init__(self, name: NodeId, world: World) -> None:
        self.name = name
        self.files = SimFiles(world.random)
        self.is_up = False
        self.life = 0
        self.resumed_ms = 0.0
        self._world = world
        self._paused = False
        self._deferred: list[Call] = []
        self._start_clock(1.0)

    # -- its ends ------------------------------------------------------------------------------------------

    def power_cut(self, tear: Tear) -> None:
        self._end(f"loses power, {tear.value}", tear)

    def kill(self) -> None:
        self._end("is killed", None)

    def _end(self, how: str, tear: Tear | None) -> None:
        self._world.note(f"{self.name} {how}")
        if tear is None:
            self.files.kill()
        else:
            self.files.crash(tear)
        self.is_up = False
        self.life += 1
        self._has_ended()

    def _has_ended(self) -> None:
        raise NotImplementedError

    def _disk_failed(self, error: StartError) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        self._world.note(f"{self.name} pauses")
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._world.note(f"{self.name} goes on")
            self._paused, self.resumed_ms = False, self._world.now_ms
            for call in self._take_deferred():
                self._world.after(0, call)

    def _take_deferred(self) -> list[Call]:
        deferred, self._deferred = self._deferred, []
        return deferred

    # -- time ----------------------------------------------------------------------------------------------

    def _start_clock(self, rate: float) -> None:
        self._clock_rate = rate
        self._clock_started_ms = self._world.now_ms

    @property
    def clock_ms(self) -> float:
        return (self._world.now_ms - self._clock_started_ms) * self._clock_rate

    def world_ms(self, clock_ms: float) -> float:
        """The virtual time at which this process's clock read, or will read, ``clock_ms``."""
        return self._clock_started_ms + clock_ms / self._clock_rate

    def later(self, delay_ms: float, call: Call) -> None:
        """Within this life, and not while it is paused."""
        self._world.after(delay_ms, partial(self.in_life, self.life, call))

    def in_process(self, call: Call) -> None:
        """At once, or when it goes on, if it is up."""
        if self.is_up:
            self.in_life(self.life, call)

    def in_life(self, life: int, call: Call) -> None:
        """Do ``call`` in the process it was scheduled for, and end that if its disk fails in it."""
        if life != self.life:
            return
        if self._paused:
            self._deferred.append(partial(self.in_life, life, call))
            return
        try:
            call()
        except PowerCut:
            self.power_cut(self._world.random.choice(list(Tear)))
        except StartError as error:
            if error.exit_code != EXIT_DISK:
                raise
            self._disk_failed(error)
