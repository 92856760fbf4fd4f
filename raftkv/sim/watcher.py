"""One who watches all changes, from node to node: each change once, in order, whatever becomes of the nodes.

It asks as a stream of ``/v1/watch`` is resumed: with the revision up to which it has seen everything.
"""

from __future__ import annotations

from itertools import groupby

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.history import Compacted
from raftkv.sim.plan import FeaturesPlan
from raftkv.sim.reference import Reference, held_of
from raftkv.sim.server import SimServer
from raftkv.sim.world import World


class Watcher:
    def __init__(
        self, world: World, plan: FeaturesPlan, reference: Reference, servers: list[SimServer]
    ) -> None:
        self._world = world
        self._plan = plan
        self._reference = reference
        self._servers = servers
        self._seen: int | None = None  # the revision; None: nobody has a history yet
        self._last: SimServer | None = None

    def start(self) -> None:
        self._world.after(self._world.random.expovariate(1 / self._plan.watch_ms), self._next)

    def _next(self) -> None:
        self.start()
        random = self._world.random
        servers = [server for server in self._servers if server.takes_requests]
        if servers:
            server = self._last if self._last in servers and random.random() < 0.5 else random.choice(servers)
            assert server is not None
            self.pull(server, random.choice((1, 3, 1000)))

    def pull(self, server: SimServer, most: int) -> None:
        """What ``server`` has beyond what was seen, of ``most`` revisions."""
        history = server.machine.store.history
        if history is None:
            return
        if self._seen is None:
            self._seen = history.compacted
        elif server is not self._last:
            self._world.probes["watch resumed elsewhere"] += 1
        self._last, before = server, self._seen
        try:
            found = list(history.since(before))
        except Compacted as compacted:
            self._world.probes["watch compacted"] += 1
            if not before < compacted.oldest == history.compacted:
                raise InvariantBroken(
                    f"watch: {server.name} has forgotten {compacted.oldest}, not {before}"
                ) from None
            self._seen = compacted.oldest
            return
        for number, (revision, changes) in enumerate(groupby(found, key=lambda change: change[0])):
            if number == most:
                return
            self._check(server, revision, [(key, held_of(old), held_of(new)) for _, key, old, new in changes])
            self._seen = revision
        self._check_all_seen(server)

    def _check(self, server: SimServer, revision: int, events: list[tuple[object, ...]]) -> None:
        """``events``: all of ``revision``, the next that has any."""
        assert self._seen is not None
        model = self._reference.model
        for between in range(self._seen + 1, revision):
            if model.changes[between - 1]:
                raise InvariantBroken(f"watch: {server.name} leaves out revision {between}")
        expected = [change[1:] for change in model.between(revision - 1, revision)]
        if revision <= self._seen or events != expected:
            raise InvariantBroken(
                f"watch: after {self._seen} {server.name} tells of {events} at {revision}, not of {expected}"
            )

    def _check_all_seen(self, server: SimServer) -> None:
        assert self._seen is not None
        if any(self._reference.model.changes[self._seen : server.machine.store.revision]):
            raise InvariantBroken(f"watch: {server.name} tells of nothing after {self._seen}, and has more")
