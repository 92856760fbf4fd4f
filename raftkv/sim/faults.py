"""What goes wrong, when, and for how long. One method a kind of fault; adding one is a method and a name in
``plan.FAULTS``.

Bound: what was confirmed as durable is damaged on less than half of the nodes, so every run is survivable.
All else may strike everyone at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random

from raftkv.consensus.types import NodeId
from raftkv.errors import BadRequest, TooManyRequests
from raftkv.sim.files import Tear
from raftkv.sim.joining import MembersTicket, draw_change
from raftkv.sim.leaving import LOOK_MS, Handover
from raftkv.sim.network import Network
from raftkv.sim.plan import Plan
from raftkv.sim.schedule import Strike
from raftkv.sim.server import SimServer
from raftkv.sim.traps import Traps
from raftkv.sim.world import World


class Faults(Traps):
    def __init__(self, world: World, plan: Plan, network: Network, servers: Sequence[SimServer]) -> None:
        super().__init__(world, plan, network, servers)
        self._ambush_until_ms = float("-inf")
        self._snapshots_struck_until_ms = float("-inf")
        self._snapshot_strikes = 0.0
        self.struck: list[Strike] = []

    def start(self, schedule: Sequence[Strike]) -> None:
        for strike in schedule:
            self._world.at(strike.at_ms, partial(self._strike, strike))

    def stop(self) -> None:
        """No new faults, and nobody is restarted any more; what has ended stays so until it is mended."""
        self._over = True

    def _strike(self, strike: Strike) -> None:
        """With chance of its own: what other strikes do, or whether they happen, doesn't move its dice."""
        if self._over:
            return
        self.struck.append(strike)
        self._world.note(f"fault {strike.number} {strike.kind}")
        self._random = Random(strike.seed)
        if getattr(self, f"_{strike.kind}")():
            self._world.probes[f"fault {strike.kind}"] += 1
        self._random = self._world.random

    # -- processes -----------------------------------------------------------------------------------------

    def server_ended(self, server: SimServer) -> None:
        """Whatever ended it: some peers notice, and it is started again."""
        for other in self._names:
            if other != server.name:
                told = [other] if self._random.random() < 0.7 else []
                self._network.disconnect(server.name, other, told)
        self._later(partial(self._restart, server))

    def _restart(self, server: SimServer) -> None:
        if not server.is_up:
            self._world.probes["restart"] += 1
            if self._random.random() < 0.05:
                server.files.fuse = self._random.randrange(8)
            server.start()

    def _power_cut(self) -> bool:
        server = self._pick()
        if server:
            server.power_cut(self._random.choice(list(Tear)))
        return server is not None

    def _power_cut_in_write(self) -> bool:
        server = self._pick()
        if server:
            server.files.fuse = self._random.randrange(10)
        return server is not None

    def _kill(self) -> bool:
        server = self._pick()
        if server:
            server.kill()
        return server is not None

    def _stop(self) -> bool:
        server = self._pick()
        if server is None or server.is_leaving:
            return False
        server.leave()
        return True

    def _rolling_restart(self) -> bool:
        """All, one after the other, as an upgrade does it. Harsher than it should be done: nobody waits until
        one has caught up, or looks whether it could start.
        """
        rest = self._random.sample(self._servers, len(self._servers))
        self._roll(rest, self._random.choice((0.0, 0.3)) * self._plan.outage_ms)
        return True

    def _roll(self, rest: list[SimServer], pause_ms: float) -> None:
        if not rest:
            self._world.probes["rolling restart completed"] += 1
        elif not self._over:
            server = rest.pop()
            self._world.note(f"{server.name}'s turn to be restarted")
            if server.is_up and not server.is_leaving:
                server.leave()
            then = partial(self._world.after, pause_ms, partial(self._roll, rest, pause_ms))
            self._await_end(server, server.life, then)

    def _await_end(self, server: SimServer, life: int, then: Callable[[], None]) -> None:
        """Of this ``life``; it is started again at once."""
        if server.is_up and server.life == life:
            self._world.after(LOOK_MS, partial(self._await_end, server, life, then))
        elif not self._over:
            self._restart(server)
            then()

    def _transfer(self) -> bool:
        """To anybody: up or down, ahead or behind, or cut off; or to whom the leader finds fit. Sometimes to
        one after the other: then two may stand for the same term, both as wished.
        """
        asked = self._pick()
        if asked is None or not asked.takes_requests:
            return False
        self._wish(asked, self._random.choice([*self._names, None]))
        for _ in range(self._random.choice((0, 0, 3))):
            pause_ms = self._random.expovariate(1 / self._plan.network.mean_delay_ms)
            self._world.after(pause_ms, partial(self._wish, asked, self._random.choice(self._names)))
        return True

    def _change_members(self) -> bool:
        asked = self._pick()
        if asked is None or not asked.takes_requests:
            return False
        change, force = draw_change(self._random, self._names), self._random.random() < 0.2
        self._world.note(f"{asked.name} is asked for {change}{' by force' if force else ''}")
        try:
            asked.change_members(change, force, MembersTicket(change), self._plan.timeout_ms)
        except TooManyRequests:
            return False
        return True

    def _wish(self, asked: SimServer, target: NodeId | None) -> None:
        if asked.takes_requests and not self._over:
            self._world.note(f"{asked.name} is asked to let {target or 'another'} lead")
            with suppress(BadRequest):  # no member, as far as it knows
                asked.transfer(target, Handover(lambda answer: None), self._plan.timeout_ms)

    def _storm(self) -> bool:
        share, tear = self._random.choice((0.5, 1.0)), self._random.choice(list(Tear))
        for server in self._servers:
            if server.is_up and self._random.random() < share:
                server.power_cut(tear)
        return True

    def _beheading(self) -> bool:
        """What Figure 8 of the paper needs: leaders that go soon after they came, and come back."""
        until_ms = self._world.now_ms + self._random.uniform(1, 4) * self._plan.outage_ms
        self._behead(until_ms, self._random.choice((2.0, 10.0, 60.0)), self._random)
        return True

    def _behead(self, until_ms: float, mean_pause_ms: float, random: Random) -> None:
        if self._over or self._world.now_ms > until_ms:
            return
        for server in self._servers:
            if server.leads:
                random.choice((self._strike_down, self._cut_off))(server)
        pause_ms = random.expovariate(1 / mean_pause_ms)
        self._world.after(pause_ms, partial(self._behead, until_ms, mean_pause_ms, random))

    def _ambush(self) -> bool:
        """What the rest of Figure 8 needs: who is elected, or commits, is gone before others hear of it."""
        self._ambush_until_ms = self._world.now_ms + self._random.uniform(0.2, 2) * self._plan.outage_ms
        return True

    def elected(self, name: NodeId) -> None:
        """Some are cut off with their first entry before anyone else has it."""
        if self._random.random() < 0.5:
            self._lay(name, self._silence)

    def committed(self, name: NodeId) -> None:
        """It was the first to commit something."""
        self._lay(name, self._random.choice((self._strike_down, self._silence)))

    def _lay(self, name: NodeId, strike: Callable[[SimServer], object]) -> None:
        if self._world.now_ms < self._ambush_until_ms:
            server = next(server for server in self._servers if server.name == name)
            self._soon(server, "ambushed", strike)

    def _soon(self, server: SimServer, probe: str, strike: Callable[[SimServer], object]) -> None:
        """When what it does right now is done, and nothing else."""
        self._world.after(0.0, partial(self._spring, server, server.life, probe, strike))

    def _spring(
        self, server: SimServer, life: int, probe: str, strike: Callable[[SimServer], object]
    ) -> None:
        if server.life == life and server.is_up and not self._over:
            self._world.probes[probe] += 1
            strike(server)

    def _silence(self, server: SimServer) -> None:
        """What it has just sent doesn't arrive either."""
        self._cut_side(server, self._random.choice((0, None)))

    def _strike_down(self, server: SimServer) -> None:
        server.power_cut(self._random.choice((Tear.KEPT, Tear.SECTORS)))

    def _cut_off(self, server: SimServer) -> None:
        self._cut_side(server, self._random.choice((0, 1, None)))

    def _cut_side(self, server: SimServer, side: int | None) -> None:
        """``side`` 0: what it sends is lost; 1: what it is sent; None: both."""
        self._cut(
            link
            for link in self._network.links
            if (server.name in link if side is None else link[side] == server.name)
        )

    def _pause(self) -> bool:
        server = self._pick()
        if server:
            server.pause()
            self._later(server.resume)
        return server is not None

    # -- snapshots -----------------------------------------------------------------------------------------

    def _snapshot(self) -> bool:
        """Sometimes its connections break soon after: then it begins anew with followers whose answers are on
        their way, and no longer has what they lack.
        """
        server = self._pick()
        if server is None:
            return False
        server.in_process(server.snapshots.take)
        if self._random.random() < 0.5:
            pause_ms = self._random.expovariate(1 / (5 * self._plan.fsync_ms))
            self._world.after(pause_ms, partial(self._lose_connections, server))
        return True

    def _lose_connections(self, server: SimServer) -> None:
        for other in self._names:
            if other != server.name and not self._over:
                self._network.disconnect(server.name, other, [server.name])

    def _snapshot_ambush(self) -> bool:
        self._snapshots_struck_until_ms = (
            self._world.now_ms + self._random.uniform(1, 4) * self._plan.outage_ms
        )
        self._snapshot_strikes = self._random.choice((0.1, 0.3))
        return True

    def in_snapshot(self, server: SimServer, travels: bool) -> None:
        """It takes one right now; or sends or gets one, which happens less often."""
        if self._world.now_ms < self._snapshots_struck_until_ms and not self._over:
            flip = partial(self._flip, what=".snap") if travels else self._flip
            strikes = self._strike_down, self._cut_off, SimServer.kill, flip, flip
            if self._random.random() < (0.5 if travels else self._snapshot_strikes):
                strike = self._random.choice(strikes)
                self._soon(server, "struck amid a snapshot", strike)

    # -- disks ---------------------------------------------------------------------------------------------

    def _slow_disk(self) -> bool:
        server = self._random.choice(self._servers)
        server.slow_ms = self._random.choice((20.0, 200.0, 1000.0))
        self._world.note(f"{server.name} disk slow by {server.slow_ms}")
        self._later(partial(setattr, server, "slow_ms", 0.0))
        return True

    def _fsync_error(self) -> bool:
        server = self._random.choice(self._servers)
        server.files.fail_syncs = self._random.choice((1, 1, 3))
        return True

    def _write_error(self) -> bool:
        self._random.choice(self._servers).files.fail_writes = 1
        return True

    def _read_error(self) -> bool:
        """Logs are read when a node starts."""
        server = self._random.choice(self._servers)
        server.files.fail_reads = 1
        if server.is_up:
            server.kill()
        return True

    def _disk_full(self) -> bool:
        files = self._random.choice(self._servers).files
        files.is_full = True
        self._later(partial(setattr, files, "is_full", False))
        return True

    def _flipped_bit(self) -> bool:
        server = self._pick()
        if server is None or not self._flip(server):
            return False
        if self._random.random() < 0.7:
            server.kill()  # at a start it is seen; else it may be sent, or go with its file
        return True

    def _flip(self, server: SimServer, what: str | None = None) -> bool:
        """In what was confirmed. It counts as lost as long as that file is there: for it must refuse to
        start, or start from an older snapshot.
        """
        damaged = sum(each.is_damaged for each in self._servers)
        if self._plan.spares or server.is_damaged or damaged >= (self._plan.size - 1) // 2:
            return False
        self._world.note(f"{server.name} disk flips {server.files.flip_bit(what)}")
        return True
