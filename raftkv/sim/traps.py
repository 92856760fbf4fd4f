"""Traps: a leader is replaced as soon as its lease allows it, if it has one, and knows nothing of it, or what
it hears is old. Reads through it must not be answered then. One method a trap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

from raftkv.consensus.types import NodeId
from raftkv.sim.link_faults import LinkFaults
from raftkv.sim.network import Link
from raftkv.sim.plan import Plan
from raftkv.sim.server import SimServer

TRAP = "trap"  # the kind of fault that it is drawn as
SHARE = 0.3  # of the seeds
SHARE_WITH_LEASES = 0.6


def with_traps(plan: Plan, random: Random) -> Plan:
    """``plan``, or the same with traps. ``random`` is of its own, so that a seed without is the run that it
    would be if there were none at all.
    """
    has_leases = plan.timing.lease_ms > 0
    if random.random() >= (SHARE_WITH_LEASES if has_leases else SHARE):
        return plan
    per_second = random.uniform(0.1, 0.4) / plan.timing.election_timeout_max_ms * 1000
    return dataclasses.replace(
        plan,
        faults=(*plan.faults, (TRAP, per_second)),
        lease_reads=plan.lease_reads or (random.choice((0.3, 0.9)) if has_leases else 0.0),
    )


class Traps(LinkFaults):
    def _trap(self) -> bool:
        leading = [server for server in self._servers if server.is_up and server.leads]
        if not leading or len(self._names) < 3:
            return False
        leader = self._random.choice(leading)
        traps: list[Callable[[SimServer], None]] = [self._late_answers, self._noticed_loss]
        if self._plan.timing.lease_ms:
            traps += [self._quick_restarts, self._late_wish]
        trap = self._random.choice(traps)
        self._world.note(f"{leader.name} in a trap:{trap.__name__.replace('_', ' ')}")
        trap(leader)
        return True

    def _late_answers(self, leader: SimServer) -> None:
        """What its followers answer is under way for long; by then they have noticed that they lost it."""
        timing, random, now_ms = self._plan.timing, self._random, self._world.now_ms
        to_others, from_others = self._ways(leader.name)
        # NB: a little less than it takes a leader that hears nothing to step down.
        for_ms = random.uniform(0.6, 1) * (timing.election_timeout_min_ms - timing.heartbeat_ms)
        deaf_ms = random.uniform(0, 0.5) * timing.heartbeat_ms
        self._network.clog(from_others, now_ms + for_ms)
        self._cut_later(deaf_ms, to_others)
        self._after(deaf_ms + 1, partial(self._notice, leader, [other for _, other in to_others]))
        self._cut_later(for_ms + 1, from_others)

    def _noticed_loss(self, leader: SimServer) -> None:
        """All others notice that they have lost it. Sometimes their disks are slow: then whoever leads next
        has words long before its first commit.
        """
        if self._random.random() < 0.5:
            slow_ms = self._random.uniform(0.05, 0.3) * self._plan.timing.election_timeout_min_ms
            for server in self._servers:
                if server is not leader:
                    server.slow_ms = slow_ms
                    self._later(partial(setattr, server, "slow_ms", 0.0))
        to_others, from_others = self._ways(leader.name)
        self._cut_later(0.0, [*to_others, *from_others])
        for other, _ in from_others:
            self._network.disconnect(leader.name, other, [other])

    def _quick_restarts(self, leader: SimServer) -> None:
        """Some haven't heard it for as long as they were bound, and notice it when those who have restart."""
        random = self._random
        others = [server for server in self._servers if server is not leader]
        deaf = random.sample(others, random.randint(1, max(1, (len(others) - 1) // 2)))
        at_ms = random.uniform(1.1, 1.4) * self._plan.timing.lease_ms
        links = [link for ways in self._ways(leader.name) for link in ways]
        names = [server.name for server in deaf]
        self._cut_later(0.0, [link for link in links if link[0] in names or link[1] in names], at_ms)
        self._cut_later(at_ms, links)
        self._after(at_ms, partial(self._restart_all, [each for each in others if each not in deaf]))
        self._after(at_ms, partial(self._notice, leader, names))

    def _restart_all(self, servers: Iterable[SimServer]) -> None:
        for server in servers:
            if server.is_up:
                server.kill()
                self._restart(server)

    def _late_wish(self, leader: SimServer) -> None:
        """Whom it wishes for hears of it late, when it may have changed its mind, and no longer hears."""
        timing, random = self._plan.timing, self._random
        target = random.choice([name for name in self._names if name != leader.name])
        for_ms = random.uniform(0.1, 1.5) * timing.election_timeout_min_ms
        self._network.clog([(leader.name, target)], self._world.now_ms + for_ms)
        self._wish(leader, target)
        if random.random() < 0.5:
            self._after(random.uniform(0, for_ms), partial(self._wish, leader, leader.name))
        self._cut_later(random.uniform(0.9, 1) * for_ms, self._ways(leader.name)[1])

    def _notice(self, leader: SimServer, others: Iterable[NodeId]) -> None:
        """That they lost it. NB: what they have sent it may be under way all the same."""
        for other in others:
            self._network.on_peer_lost(other, leader.name)

    # -- what they are made of -----------------------------------------------------------------------------

    def _restart(self, server: SimServer) -> None:
        raise NotImplementedError

    def _wish(self, asked: SimServer, target: NodeId | None) -> None:
        raise NotImplementedError

    def _ways(self, name: NodeId) -> tuple[list[Link], list[Link]]:
        """From it, and to it."""
        links = self._network.links
        return [link for link in links if link[0] == name], [link for link in links if link[1] == name]

    def _after(self, delay_ms: float, call: Callable[[], None]) -> None:
        """Unless all are over by then."""

        def act() -> None:
            if not self._over:
                call()

        self._world.after(delay_ms, act)

    def _cut_later(self, delay_ms: float, links: list[Link], for_ms: float | None = None) -> None:
        """Without notice, and for as long as it takes to elect somebody."""
        timing = self._plan.timing
        if for_ms is None:
            for_ms = timing.lease_ms + self._random.uniform(0.5, 1.5) * timing.election_timeout_max_ms

        def cut() -> None:
            self._world.note("cut " + " ".join(f"{a}→{b}" for a, b in links))
            self._after(for_ms, partial(self._mend, self._network.cut(links)))

        self._after(delay_ms, cut)
