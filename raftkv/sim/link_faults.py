"""What goes wrong between nodes: cuts, broken connections, clogs; and whom a fault picks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from raftkv.consensus.types import NodeId
from raftkv.sim.network import Link, Network
from raftkv.sim.plan import Plan
from raftkv.sim.server import SimServer
from raftkv.sim.world import World


class LinkFaults:
    def __init__(self, world: World, plan: Plan, network: Network, servers: Sequence[SimServer]) -> None:
        self._world = world
        self._random = world.random
        self._plan = plan
        self._network = network
        self._servers = list(servers)
        self._names = [server.name for server in servers]
        self._over = False

    def _later(self, call: Callable[[], None]) -> None:
        """After an outage, unless all are over by then."""

        def end() -> None:
            if not self._over:
                call()

        self._world.after(self._random.expovariate(1 / self._plan.outage_ms), end)

    def _pick(self) -> SimServer | None:
        """One that is up; who leads is picked as often as all others."""
        living = [server for server in self._servers if server.is_up]
        leading = [server for server in living if server.leads]
        return self._random.choice(self._random.choice((leading or living, living))) if living else None

    def _pick_name(self) -> NodeId:
        server = self._pick()
        return server.name if server else self._names[0]

    # -- links ---------------------------------------------------------------------------------------------

    def _cut(self, links: Iterable[Link]) -> bool:
        """For an outage. Each broken connection is noticed, or not."""
        cut = self._network.cut(links)
        self._world.note("cut " + " ".join(f"{a}→{b}" for a, b in cut))
        notice = self._random.choice((0.0, 0.5, 1.0))
        for one, other in cut:
            if self._random.random() < notice:
                self._network.disconnect(one, other, [other])
        self._later(partial(self._mend, cut))
        return bool(cut)

    def _mend(self, cut: list[Link]) -> None:
        self._world.note("mend " + " ".join(f"{a}→{b}" for a, b in cut))
        self._network.mend(cut)

    def _isolate(self) -> bool:
        one = self._pick_name()
        return self._cut(link for link in self._network.links if one in link)

    def _isolate_long(self) -> bool:
        """One that follows; snapshots are taken meanwhile."""
        following = [server for server in self._servers if server.is_up and not server.leads]
        if not following:
            return False
        one = self._random.choice(following)
        cut = self._network.cut(link for link in self._network.links if one.name in link)
        self._world.note("cut for long " + one.name)
        for_ms = self._random.uniform(2, 6) * self._plan.outage_ms
        self._world.after(for_ms / 2, self._everyone_takes_a_snapshot)
        self._world.after(for_ms, partial(self._mend_unless_over, cut))
        return bool(cut)

    def _everyone_takes_a_snapshot(self) -> None:
        for server in self._servers:
            if server.is_up and not self._over:
                server.in_process(server.snapshots.take)

    def _mend_unless_over(self, cut: list[Link]) -> None:
        if not self._over:
            self._mend(cut)

    def _deafen(self) -> bool:
        one = self._pick_name()
        return self._cut(link for link in self._network.links if link[1] == one)

    def _mute(self) -> bool:
        one = self._pick_name()
        return self._cut(link for link in self._network.links if link[0] == one)

    def _halves(self) -> tuple[list[NodeId], list[NodeId]]:
        names = self._random.sample(self._names, len(self._names))
        at = self._random.randint(1, max(1, len(names) - 1))
        return names[:at], names[at:]

    def _split(self) -> bool:
        one, _ = self._halves()
        return self._cut(link for link in self._network.links if (link[0] in one) != (link[1] in one))

    def _bridge(self) -> bool:
        one, _ = self._halves()
        bridge = self._random.choice(self._names)
        return self._cut(
            link
            for link in self._network.links
            if bridge not in link and (link[0] in one) != (link[1] in one)
        )

    def _two(self) -> tuple[NodeId, NodeId] | None:
        if len(self._names) < 2:
            return None
        one, other = self._random.sample(self._names, 2)
        return one, other

    def _cut_pair(self) -> bool:
        two = self._two()
        return two is not None and self._cut([two, (two[1], two[0])])

    def _one_way(self) -> bool:
        two = self._two()
        return two is not None and self._cut([two])

    def _lose_connection(self) -> bool:
        two = self._two()
        if two is None:
            return False
        told = [name for name in two if self._random.random() < 0.5]
        notice = "with" if told else "without"
        self._world.probes[f"connection lost {notice} notice"] += 1
        self._world.note(f"{two[0]} and {two[1]} lose their connection {notice} notice")
        self._network.disconnect(*two, told)
        return True

    def _clog_node(self, name: NodeId, for_ms: float) -> None:
        links = [link for link in self._network.links if name in link]
        self._network.clog(links, self._world.now_ms + for_ms)

    def _clog(self) -> bool:
        two = self._two()
        if two is not None:
            for_ms = self._random.expovariate(1 / self._plan.outage_ms)
            self._network.clog([two], self._world.now_ms + for_ms)
        return two is not None

    def _swizzle(self) -> bool:
        """Each is clogged at its own time and freed at its own time, so the orders differ."""
        for name in self._names:
            if self._random.random() < 0.5:
                begin_ms = self._random.uniform(0, self._plan.outage_ms)
                for_ms = self._random.uniform(0, 2 * self._plan.outage_ms)
                self._world.after(begin_ms, partial(self._clog_unless_over, name, for_ms))
        return len(self._names) > 1

    def _clog_unless_over(self, name: NodeId, for_ms: float) -> None:
        if not self._over:
            self._clog_node(name, for_ms)
