"""A whole cluster in one thread, for tests of the core: real ``Node``s, time that moves when told to, a
network of queues and disks of queues, both controlled from outside.

Nothing happens by itself but one thing: a disk that isn't ``slow`` completes its writes at the end of the
turn that queued them. After every turn the checks of ``checks.py`` run over the whole cluster.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from raftkv.consensus import Envelope, Log, Node, Ready
from raftkv.consensus.messages import InstallSnapshot
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import (
    Change,
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    Limits,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
    Timing,
    Write,
)
from tests.consensus.checks import Checks
from tests.consensus.disk import Disk, boundary_of, entries, entry
from tests.consensus.members import membership_in
from tests.consensus.servers import Server, Stream

__all__ = ["Cluster", "Disk", "Link", "Server", "Stream", "entries", "entry"]

Link = tuple[str, str]


Observer = Callable[[Server, Ready], None]


class Cluster:
    """``names`` are the voters. ``seed`` drives the nodes' own chance, unless ``uniform`` is given, which
    makes each node's from its name. Nodes learn the time by ``tick`` alone; with ``exact_clocks``, by every
    message too.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        seed: int = 0,
        uniform: Callable[[str], Callable[[float, float], float]] | None = None,
        exact_clocks: bool = True,
        timing: Timing = Timing(),
        limits: Limits = Limits(),
        logs: Mapping[str, list[Entry]] | None = None,
        hard_states: Mapping[str, HardState] | None = None,
    ) -> None:
        self.membership = Membership.of(*names)
        self.timing, self.limits = timing, limits
        chance = random.Random(seed).uniform
        self.uniform = uniform or (lambda name: chance)
        self.exact_clocks = exact_clocks
        self.now_ms = 0.0
        self.rates: dict[str, float] = {}  # of the clocks that don't run at 1
        self.links: dict[Link, deque[Envelope]] = {}
        self.streams: list[Stream] = []
        self.cuts: set[Link] = set()
        self.checks = Checks(self.membership)
        self._changes = 0
        self.observe: Observer = lambda server, ready: None
        self.on_send: Callable[[Envelope], None] = lambda envelope: None
        self.on_stream: Callable[[Stream], None] = lambda stream: None
        self.on_write: Callable[[Server, Write], None] = lambda server, write: None
        self.servers: dict[str, Server] = {}
        for name in self.membership.voters:
            log = list((logs or {}).get(name, []))
            term = log[-1].term if log else Term(0)
            hard_state = (hard_states or {}).get(name, HardState(term, None))
            self.servers[name] = Server(name, Disk(hard_state, log), membership=self.membership)
            self.restart(name)

    def join(self, name: str) -> None:
        """A server is started that knows nobody, and waits to be made a member."""
        node_id = NodeId(name)
        self.servers[name] = Server(node_id, Disk())
        self.restart(name)

    # -- looking -------------------------------------------------------------------------------------------

    def node(self, name: str) -> Node:
        node = self.servers[name].node
        assert node is not None, f"{name} is down"
        return node

    def clock_ms(self, name: str) -> float:
        return self.now_ms * self.rates.get(name, 1.0)

    def due_ms(self, name: str) -> float:
        """When ``name`` is due, in the cluster's time."""
        rate = self.rates.get(name, 1.0)
        due_ms = self.node(name).due_ms
        return due_ms if rate == 1.0 else due_ms / rate + 1e-6  # NB: not a rounding error too early

    @property
    def living(self) -> list[Server]:
        return [server for server in self.servers.values() if server.node is not None]

    @property
    def leaders(self) -> list[str]:
        """Those who think they lead, the latest term last."""
        found = [s for s in self.living if s.node and isinstance(s.node.role, Leader)]
        return [s.node_id for s in sorted(found, key=lambda s: s.node.current_term if s.node else 0)]

    def in_flight(self, sender: str | None = None, receiver: str | None = None) -> list[Envelope]:
        return [
            envelope
            for (source, target), queue in sorted(self.links.items())
            if sender in (None, source) and receiver in (None, target)
            for envelope in queue
        ]

    # -- a turn --------------------------------------------------------------------------------------------

    def turn(self, server: Server) -> None:
        """Carry out what a node's inputs led to, under the contract of ``Ready``."""
        node, disk = server.node, server.disk
        assert node is not None
        while True:
            ready = node.take_ready()
            self.observe(server, ready)
            for envelope in ready.messages:
                self.checks.message_left(envelope, server.disk.hard_state, server.disk.entries)
                self.send(envelope)
            if ready.write is not None or (ready.promises and disk.queue):
                disk.queue.append((ready.write, ready.promises, ready.mark))
            else:
                self._release(server, ready.promises)
            if ready.installed is not None:
                # NB: a newer one may be there, whose sender led no more when it had come whole.
                covered = server.disk.snapshot[: ready.installed.index]
                assert boundary_of(covered) == ready.installed, "installed before it was durable"
                server.applied[:] = covered
            for receiver in ready.snapshots_for:
                self._stream(server, receiver)
            for each in ready.committed:
                assert each.index == len(server.applied) + 1, "applied out of order"
                server.applied.append(each)
                self.checks.entry_applied(each)
            for grant in ready.reads:
                self.checks.read_granted(grant)
                server.grants.append(grant)
            server.replies += ready.change_replies
            self._check(server)
            if disk.queue and not disk.slow:
                self._complete(server)
            elif not node.has_more:
                return

    def _check(self, server: Server) -> None:
        assert server.node is not None
        nodes = [each.node for each in self.living if each.node]
        self.checks.turn_ended(server.node, nodes, self._durable())
        if isinstance(server.node.role, Leader):
            leases = {each.node_id: each.lease_until_ms - self.clock_ms(each.node_id) for each in nodes}
            self.checks.leases_hold(nodes, leases)

    def _durable(self) -> dict[NodeId, list[Entry]]:
        return {server.node_id: server.disk.entries for server in self.servers.values()}

    def _release(self, server: Server, promises: tuple[Envelope, ...]) -> None:
        for promise in promises:
            self.checks.promise_left(promise, server.disk.hard_state, server.disk.entries)
            self.send(promise)

    def _complete(self, server: Server) -> None:
        write, promises, mark = server.disk.queue[0]
        if write is not None:
            self.on_write(server, write)
        server.disk.complete()
        self.checks.disk_changed(self._durable())
        self._release(server, promises)
        if write is not None and server.node is not None:
            server.node.persisted(mark)

    def complete_write(self, name: str) -> None:
        """The oldest write of a slow disk becomes durable."""
        server = self.servers[name]
        self._complete(server)
        self.turn(server)

    # -- snapshots -----------------------------------------------------------------------------------------

    def snapshot(self, name: str, keep: int = 0) -> SnapshotMeta:
        """A snapshot of what ``name`` has applied becomes durable; its log forgets all but ``keep`` of it."""
        server = self.servers[name]
        server.disk.snapshot = list(server.applied)
        meta = server.disk.boundary
        membership = self.node(name).membership_at(meta.index)
        if any(each.kind is EntryKind.CONFIG for each in server.applied):
            assert membership == membership_in(server.applied, self.membership)
        server.membership = membership
        self.node(name).compact(Index(max(0, meta.index - keep)))
        self.turn(server)
        return meta

    def _stream(self, server: Server, receiver: NodeId) -> None:
        meta, node = server.disk.boundary, self.node(server.node_id)
        assert meta.index >= node.log.boundary.index, "the log begins after what the snapshot covers"
        message = InstallSnapshot(meta, server.membership)
        envelope = Envelope(GroupId(0), server.node_id, receiver, node.current_term, message)
        stream = Stream(envelope, list(server.disk.snapshot))
        self.streams.append(stream)
        self.on_stream(stream)

    def finish(self, stream: Stream, *, arrives: bool = True) -> None:
        """A snapshot's way ends; unless it ``arrives``, in nothing."""
        self.streams.remove(stream)
        sender, receiver = (self.servers[each] for each in (stream.envelope.sender, stream.envelope.receiver))
        if arrives and receiver.node is not None:
            # What a node has applied isn't replaced by less.
            if len(stream.covered) > max(len(receiver.disk.snapshot), receiver.node.commit_index):
                receiver.disk.snapshot = stream.covered
                assert isinstance(stream.envelope.message, InstallSnapshot)
                receiver.membership = stream.envelope.message.membership
            self.receive(stream.envelope)
        if sender.node is not None:
            sender.node.snapshot_ended(receiver.node_id)
            self.turn(sender)

    # -- the network ---------------------------------------------------------------------------------------

    def send(self, envelope: Envelope) -> None:
        self.on_send(envelope)
        link = (envelope.sender, envelope.receiver)
        if link not in self.cuts:
            self.links.setdefault(link, deque()).append(envelope)

    def deliver(self, link: Link, position: int = 0) -> None:
        """Hand over one message of a link (the oldest, unless told otherwise). The dead don't listen."""
        queue = self.links[link]
        envelope = queue[position]
        del queue[position]
        self.receive(envelope)

    def receive(self, envelope: Envelope) -> None:
        server = self.servers[envelope.receiver]
        if server.node is not None and (envelope.sender, envelope.receiver) not in self.cuts:
            if self.exact_clocks:
                server.node.clock(self.clock_ms(server.node_id))
            server.node.step(envelope)
            self.turn(server)

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """From now on nothing gets from ``one`` to ``other``. What is in flight stays, for after healing."""
        self.cuts.add((one, other))
        if both:
            self.cuts.add((other, one))

    def isolate(self, name: str) -> None:
        for other in self.servers:
            if other != name:
                self.cut(name, other)

    def heal(self) -> None:
        self.cuts.clear()

    # -- time and life -------------------------------------------------------------------------------------

    def tick(self, name: str) -> None:
        server = self.servers[name]
        assert server.node is not None
        server.node.tick(self.clock_ms(name))
        self.turn(server)

    def advance(self, ms: float) -> None:
        """Let time pass and tick everyone who is alive, once, at its end."""
        self.now_ms += ms
        for server in self.living:
            self.tick(server.node_id)

    def campaign(self, name: str) -> None:
        """Time passes until this node's election timeout, and only this node looks at the clock."""
        self.now_ms = max(self.now_ms, self.due_ms(name))
        self.tick(name)

    def crash(self, name: str, written: int = 0) -> None:
        """Kill a node. Of the writes under way, the first ``written`` still reach the disk."""
        server = self.servers[name]
        server.node = None
        for _ in range(min(written, len(server.disk.queue))):
            server.disk.complete()
        server.disk.queue.clear()
        server.applied, server.grants = [], []
        self.checks.forget(server.node_id)
        self.checks.disk_changed(self._durable())

    def restart(self, name: str) -> None:
        server = self.servers[name]
        server.applied = list(server.disk.snapshot)
        server.disk.log = list(server.disk.entries)
        server.node = Node(
            server.node_id,
            server.membership,
            uniform=self.uniform(name),
            now_ms=self.clock_ms(name),
            hard_state=server.disk.hard_state,
            log=Log(server.disk.entries[server.disk.boundary.index :], server.disk.boundary),
            timing=self.timing,
            limits=self.limits,
        )

    # -- clients -------------------------------------------------------------------------------------------

    def propose(self, name: str, *batches: bytes) -> bool:
        taken = self.node(name).propose(batches)
        self.turn(self.servers[name])
        return taken

    def read(self, name: str, read_id: int, *, by_lease: bool = False) -> bool:
        self.checks.read_asked(read_id)
        if by_lease:
            self.node(name).clock(self.clock_ms(name))
        taken = self.node(name).read(read_id, by_lease=by_lease)
        self.turn(self.servers[name])
        return taken

    def transfer(self, name: str, target: str | None) -> bool:
        taken = self.node(name).transfer(None if target is None else NodeId(target))
        self.turn(self.servers[name])
        return taken

    def change(self, name: str, change: Change, *, force: bool = False) -> bool:
        """A client of ``name`` wishes that; the answer comes to its ``replies``."""
        self._changes += 1
        taken = self.node(name).change_members(self._changes, change, force=force)
        self.turn(self.servers[name])
        return taken

    def peer_lost(self, name: str, peer: str) -> None:
        self.node(name).peer_lost(NodeId(peer))
        self.turn(self.servers[name])

    # -- running -------------------------------------------------------------------------------------------

    def settle(self, max_steps: int = 100_000) -> None:
        """Deliver all that can be, oldest first, link by link, until nothing is in flight. No time passes."""
        for _ in range(max_steps):
            busy = [link for link, queue in sorted(self.links.items()) if queue and link not in self.cuts]
            if not busy:
                return
            for link in busy:
                if self.links[link]:
                    self.deliver(link)
        raise AssertionError("the cluster never comes to rest")

    def run(self, ms: float, until: Callable[[], bool] = lambda: False, latency_ms: float = 0.5) -> bool:
        """Let ``ms`` pass with a working network; stop as soon as ``until`` holds, and say whether."""
        end = self.now_ms + ms
        while not until():
            due = min((self.due_ms(server.node_id) for server in self.living), default=end)
            busy = any(queue and link not in self.cuts for link, queue in self.links.items())
            at = max(self.now_ms, min(due, self.now_ms + latency_ms if busy else due))
            if at > end:
                return until()
            self.now_ms = at
            for server in self.living:
                self.tick(server.node_id)
            for stream in list(self.streams):
                self.finish(stream)
            for link in sorted(self.links):
                for _ in range(len(self.links[link]) if link not in self.cuts else 0):
                    self.deliver(link)
        return True

    def elect(self, name: str) -> None:
        """A test's usual start: ``name`` leads, and its no-op is committed everywhere."""
        self.campaign(name)
        self.settle()
        self.advance(self.timing.commit_notice_ms)
        self.settle()
        assert isinstance(self.node(name).role, Leader)
