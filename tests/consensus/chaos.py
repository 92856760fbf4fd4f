"""Seeded random runs: a cluster under every fault the harness knows, then healed. It must be safe at any
time, and live afterwards. One seed is one run, the same wherever it is played.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Limits, Timing, Write
from tests.consensus.harness import Cluster, Link, Server

SIZES = (1, 3, 3, 3, 5, 5, 7)
HEALED_WITHIN_MS = 10_000.0  # virtual: a dozen election timeouts, for one leader and everything caught up
SMALL = Limits(  # so that windows, batches and refusals happen in short runs
    max_append_bytes=12,
    max_inflight_messages=3,
    max_inflight_bytes=40,
    max_unsettled_bytes=120,
    max_waiting_reads=20,
    max_apply_bytes=15,
)


class Chaos:
    """One run. ``mood`` weights the actions; each run draws its own: some are calm, others wild."""

    def __init__(self, seed: int, steps: int = 300, timing: Timing = Timing()) -> None:
        self.random = random.Random(seed)
        self.steps = steps
        size = self.random.choice(SIZES)
        limits = SMALL if self.random.random() < 0.5 else Limits()
        self.names = [f"n{i}" for i in range(1, size + 1)]
        self.cluster = Cluster(
            self.names,
            uniform=lambda name: self.random.uniform,
            timing=timing,
            limits=limits,
            exact_clocks=self.random.random() < 0.5,
        )
        self.next_id = 0
        self.installed = 0  # how often a snapshot took a log's place
        self.overwritten = 0  # how often a conflicting suffix was cut from a disk
        self.cluster.on_write = self._see_write
        pick = self.random.choice
        self.mood: list[tuple[Callable[[], None], float]] = [
            (self.deliver, 100),
            (self.pass_time, pick([5, 20, 60])),
            (self.wait_for_the_next_timer, pick([0.5, 2, 8])),
            (self.complete_write, 40),
            (self.propose, pick([2, 10, 20])),
            (self.read, pick([2, 10])),
            (self.drop, pick([0, 2, 20])),
            (self.duplicate, pick([0, 2, 20])),
            (self.cut, pick([0, 0.5, 3])),
            (self.cut_off_the_leader, pick([0, 0.5, 2])),
            (self.heal, 1),
            (self.crash, pick([0, 0.3, 2])),
            (self.restart, 3),
            (self.peer_lost, pick([0, 0.5, 3])),
            (self.change_disk, pick([0, 1, 3])),
            (self.snapshot, pick([0, 1, 5])),
            (self.end_stream, 3),
        ]
        self.reordering = pick([0.0, 0.1, 0.5])

    def run(self) -> None:
        actions, weights = zip(*self.mood, strict=True)
        for action in self.random.choices(actions, weights, k=self.steps):
            action()
        self.must_recover()

    def _see_write(self, server: Server, write: Write) -> None:
        self.installed += write.boundary is not None
        if write.entries and write.entries[0].index <= len(server.disk.entries):
            self.overwritten += 1

    # -- the faults ----------------------------------------------------------------------------------------

    def _busy(self) -> list[Link]:
        cluster = self.cluster
        return [link for link, queue in cluster.links.items() if queue and link not in cluster.cuts]

    def _position(self, link: Link) -> int:
        length = len(self.cluster.links[link])
        return self.random.randrange(length) if self.random.random() < self.reordering else 0

    def _living(self) -> str | None:
        living = self.cluster.living
        return self.random.choice(living).node_id if living else None

    def deliver(self) -> None:
        if busy := self._busy():
            link = self.random.choice(busy)
            self.cluster.deliver(link, self._position(link))

    def drop(self) -> None:
        if busy := self._busy():
            link = self.random.choice(busy)
            del self.cluster.links[link][self._position(link)]

    def duplicate(self) -> None:
        """A copy stays behind, to arrive again at any time after."""
        if busy := self._busy():
            queue = self.cluster.links[self.random.choice(busy)]
            queue.append(queue[self.random.randrange(len(queue))])

    def pass_time(self) -> None:
        self.cluster.now_ms += self.random.choice([0.1, 1, 5, 30])
        if name := self._living():
            self.cluster.tick(name)

    def wait_for_the_next_timer(self) -> None:
        living = self.cluster.living
        if living:
            server = min(living, key=lambda each: self.cluster.due_ms(each.node_id))
            self.cluster.now_ms = max(self.cluster.now_ms, self.cluster.due_ms(server.node_id))
            self.cluster.tick(server.node_id)

    def complete_write(self) -> None:
        slow = [each for each in self.cluster.living if each.disk.queue]
        if slow:
            self.cluster.complete_write(self.random.choice(slow).node_id)

    def change_disk(self) -> None:
        if name := self._living():
            server = self.cluster.servers[name]
            server.disk.slow = not server.disk.slow
            self.cluster.turn(server)

    def cut(self) -> None:
        if len(self.names) > 1:
            if self.random.random() < 0.3:
                self.cluster.isolate(self.random.choice(self.names))
            else:
                one, other = self.random.sample(self.names, 2)
                self.cluster.cut(one, other, both=self.random.random() < 0.5)

    def cut_off_the_leader(self) -> None:
        """It doesn't know; the others do, and have a new leader while clients still read at the old one."""
        if leaders := self.cluster.leaders:
            self.cluster.isolate(leaders[-1])
            for server in self.cluster.living:
                if server.node_id != leaders[-1]:
                    self.cluster.peer_lost(server.node_id, leaders[-1])

    def heal(self) -> None:
        self.cluster.heal()

    def crash(self) -> None:
        if name := self._living():
            self.cluster.crash(name, written=self.random.randrange(3))
            for other in self.names:  # some notice, some don't
                if self.cluster.servers[other].node is not None and self.random.random() < 0.7:
                    self.cluster.peer_lost(other, name)

    def restart(self) -> None:
        dead = [each for each in self.cluster.servers.values() if each.node is None]
        if dead:
            self.cluster.restart(self.random.choice(dead).node_id)

    def peer_lost(self) -> None:
        """A hint that may be false."""
        if (name := self._living()) and len(self.names) > 1:
            self.cluster.peer_lost(name, self.random.choice([each for each in self.names if each != name]))

    def snapshot(self) -> None:
        living = [server.node_id for server in self.cluster.living if server.applied]
        if living:
            self.cluster.snapshot(self.random.choice(living), keep=self.random.choice([0, 0, 2, 10]))

    def end_stream(self) -> None:
        """Well, or broken off."""
        if self.cluster.streams:
            stream = self.random.choice(self.cluster.streams)
            self.cluster.finish(stream, arrives=self.random.random() < 0.7)

    # -- the clients ---------------------------------------------------------------------------------------

    def propose(self) -> None:
        if name := self._living():
            batches = [self._batch() for _ in range(self.random.randrange(1, 4))]
            self.cluster.propose(name, *batches)

    def _batch(self) -> bytes:
        self.next_id += 1
        return b"%d" % self.next_id + b"." * self.random.choice([0, 3, 20])

    def read(self) -> None:
        self.next_id += 1
        leaders = self.cluster.leaders
        name = leaders[0] if leaders and self.random.random() < 0.5 else self._living()
        if name:
            self.cluster.read(name, self.next_id)

    # -- afterwards ----------------------------------------------------------------------------------------

    def must_recover(self) -> None:
        """Liveness: with everything mended there is one leader soon, one log, and clients are served."""
        cluster = self.cluster
        cluster.heal()
        for server in cluster.servers.values():
            server.disk.slow = False
            if server.node is None:
                cluster.restart(server.node_id)
            cluster.turn(server)
        assert cluster.run(HEALED_WITHIN_MS, self._agreed), f"no recovery: {self._picture()}"
        for number, name in enumerate(self.names):
            batch = b"after %s" % name.encode()
            assert cluster.propose(name, batch), f"{name} has no leader: {self._picture()}"
            arrived = cluster.run(1000, lambda batch=batch: self._applied_everywhere(batch))  # type: ignore[misc]
            assert arrived, f"{batch!r} does not commit: {self._picture()}"
            read_id = self.next_id + number + 1
            assert cluster.read(name, read_id)
            granted = cluster.run(1000, lambda read_id=read_id: read_id in cluster.checks.granted)  # type: ignore[misc]
            assert granted, f"the read at {name} is not granted: {self._picture()}"

    def _agreed(self) -> bool:
        nodes = [self.cluster.node(name) for name in self.names]
        leaders = [node for node in nodes if isinstance(node.role, Leader)]
        return (
            len(leaders) == 1
            and all(node.leader == leaders[0].node_id for node in nodes)
            and len({(node.log.last_index, node.log.last_term, node.commit_index) for node in nodes}) == 1
            and leaders[0].commit_index == leaders[0].log.last_index
        )

    def _applied_everywhere(self, batch: bytes) -> bool:
        return all(any(each.data == batch for each in s.applied) for s in self.cluster.servers.values())

    def _picture(self) -> str:
        lines = []
        for name in self.names:
            node = self.cluster.node(name)
            indexes = f"last={node.log.last_index} commit={node.commit_index}"
            lines.append(f"{name}@{node.current_term} {indexes} {node.role}")
        return "\n".join([f"at {self.cluster.now_ms} ms", *lines])


def play(seed: int, steps: int = 300) -> Chaos:
    chaos = Chaos(seed, steps)
    chaos.run()
    return chaos
