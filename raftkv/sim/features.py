"""The machine's second level in the simulator: which runs get there, and the leader's housekeeping as
``server/housekeeping.py`` does it.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from raftkv.errors import RaftkvError
from raftkv.kv.commands import encode_compact, encode_level, encode_tick
from raftkv.kv.levels import MACHINE_LEVEL
from raftkv.sim.plan import FeaturesPlan, Plan
from raftkv.sim.world import World

if TYPE_CHECKING:
    from raftkv.sim.server import SimServer

SHARE = 0.4  # of the seeds rise to level 2


class HouseTicket:
    """The next one is proposed when this one ``is_answered``."""

    def __init__(self) -> None:
        self.is_answered = False


def with_features(plan: Plan, random: Random) -> Plan:
    """``plan``, or the same at level 2. ``random`` is of its own, so that a seed without is the run that it
    would be if there were none at all.
    """
    if random.random() >= SHARE:
        return plan
    timeout_ms = plan.timing.election_timeout_max_ms
    features = FeaturesPlan(
        rise_ms=random.choice((0.0, random.uniform(0, plan.duration_ms / 2))),
        share=random.choice((0.3, 0.6, 0.9)),
        ttl_ms=tuple(max(100, int(timeout_ms * random.uniform(0.1, times))) for times in (0.5, 1, 3, 6)),
        keep=random.choice((3, 20, 1000)),
        look_ms=random.choice((10.0, 100.0)),
        watch_ms=random.choice((10.0, 100.0, timeout_ms)),
    )
    return dataclasses.replace(plan, features=features)


class Housekeeping:
    """In one life of a server."""

    def __init__(self, server: SimServer, world: World, plan: FeaturesPlan) -> None:
        self._server = server
        self._world = world
        self._plan = plan
        self._ticket: HouseTicket | None = None

    def look(self) -> None:
        server, plan = self._server, self._plan
        server.later(plan.look_ms, self.look)
        if self._ticket is not None and not self._ticket.is_answered:
            return
        self._ticket = None
        command = self._next_command()
        if command is not None:
            with suppress(RaftkvError):  # it is tried again
                ticket = HouseTicket()
                server.propose(command, ticket, 10 * plan.look_ms)
                self._ticket = ticket

    def _next_command(self) -> bytes | None:
        replica, machine = self._server.replica, self._server.machine
        assert replica is not None
        now_ms = replica.node.cluster_time_ms
        if now_ms is None:
            return None
        history = machine.store.history
        if history is None:
            may_rise = self._world.now_ms >= self._plan.rise_ms
            return encode_level(MACHINE_LEVEL) if may_rise else None
        if machine.due_ms <= now_ms:
            return encode_tick()
        upto = machine.store.revision - self._plan.keep
        # NB: the real one goes by whole blocks, which no run is long enough to fill.
        return encode_compact(upto) if upto > history.compacted + self._plan.keep else None
