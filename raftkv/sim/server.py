"""A node's process in virtual time: its starts, turns, timers and ends, as ``server/driver.py`` and
``server/app.py`` do them, with another disk and other links.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.log import Log
from raftkv.consensus.membership import decode_membership
from raftkv.consensus.messages import Envelope, LeaseGrant, LeaseRead, TimeoutNow
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Change, GroupId, Index, NodeId
from raftkv.errors import RaftkvError, ShuttingDown, StartError
from raftkv.kv.machine import Applied, KvMachine
from raftkv.replica import Replica
from raftkv.sim.checks import Checks
from raftkv.sim.disk import Durable, SimDisk
from raftkv.sim.features import Housekeeping
from raftkv.sim.files import PowerCut, Tear
from raftkv.sim.joining import founded_with
from raftkv.sim.lease_checks import check_leader, check_lease
from raftkv.sim.leaving import Leaving
from raftkv.sim.network import Network
from raftkv.sim.plan import Plan
from raftkv.sim.process import Process
from raftkv.sim.reference import Reference
from raftkv.sim.snapshots import Snapshots
from raftkv.sim.world import World
from raftkv.storage.segment import EXIT_DAMAGED, EXIT_DISK
from raftkv.storage.start import Opened, open_storage
from raftkv.storage.wal import GroupState
from raftkv.waiting import Answer

DIRECTORY = Path("/data")
CLUSTER_ID = "5111111111111111"
TURN_MS = 0.03  # from the first input of a turn to the turn: what comes in meanwhile joins it


@dataclass(slots=True)
class Surroundings:
    """What all nodes of a run share."""

    world: World
    plan: Plan
    checks: Checks
    reference: Reference
    network: Network
    answered: Callable[[SimServer, Answer], None]
    on_end: Callable[[SimServer], None]  # its process has ended
    on_stage: Callable[[SimServer, bool], None] = lambda server, travels: None
    """It is in the middle of a snapshot, one that it takes, or one that travels."""
    servers: dict[NodeId, SimServer] = field(default_factory=dict)


class _Watched(Protocol):
    def __call__(self, time_ms: int, data: bytes, applied: Applied | None) -> None: ...


class WatchedMachine(KvMachine):
    """The real machine, and every result shown to ``watch``."""

    def __init__(self, watch: _Watched) -> None:
        super().__init__()
        self._watch = watch

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        applied = super().apply(time_ms, data)
        self._watch(time_ms, data, applied)
        return applied


class SimServer(Process):
    def __init__(self, name: NodeId, around: Surroundings, durable: Durable) -> None:
        super().__init__(name, around.world)
        self.durable = durable
        self.is_leaving = False  # it was told to stop
        self.door_is_open = True
        self.slow_ms = 0.0  # what each sync takes longer
        self.machine = WatchedMachine(self._applied)
        self.replica: Replica | None = None
        self._around = around

    # -- its life ------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Whether it is up afterwards. Raises ``AssertionError`` where it starts on a damaged log, or
        refuses a disk from which it can start.
        """
        plan, world, random = self._around.plan, self._world, self._world.random
        self.life += 1
        self.machine = WatchedMachine(self._applied)
        damage = self.files.damaged_names()
        can_start = self.durable.can_start(self.files.names(DIRECTORY), damage)
        try:
            opened = open_storage(
                self.files, DIRECTORY, CLUSTER_ID, self.name, segment_bytes=plan.segment_bytes
            )
            self._restore(opened)
        except PowerCut:
            self.durable.start_interrupted(self.files.names(DIRECTORY), damage)
            self._end("loses power while it starts", random.choice(list(Tear)))
            return False
        except StartError as error:
            self._refused(error, can_start)
            return False
        if any(name.endswith(".log") for name in damage):
            raise AssertionError(f"{self.name} starts on a damaged log")
        if opened.recovered.dropped_tail_bytes:
            world.probes["torn tail dropped"] += 1
        if opened.set_aside:
            world.probes["older snapshot used" if opened.snapshot else "log used without its snapshot"] += 1
        self.durable.found(self.files.names(DIRECTORY), damage, opened.snapshot)
        # NB: many at the bounds, where what rests on them is at its tightest.
        self._start_clock(1 + plan.clock_drift * max(-1.0, min(random.uniform(-1.5, 1.5), 1.0)))
        self._build(opened)
        self.is_up, self._paused, self._deferred = True, False, []
        self.is_leaving, self.door_is_open = False, True
        world.note(f"{self.name} starts, incarnation {opened.recovered.incarnation}")
        if plan.features is not None:
            Housekeeping(self, world, plan.features).look()
        self.wake()
        return True

    @property
    def is_damaged(self) -> bool:
        return self.files.has_damage

    def _refused(self, error: StartError, can_start: bool) -> None:
        damaged = error.exit_code == EXIT_DAMAGED
        if error.exit_code != EXIT_DISK and (can_start or not damaged):
            raise AssertionError(f"{self.name} refuses a disk from which it can start: {error}")
        self._world.probes["damage refused" if damaged else "start failed on a bad disk"] += 1
        self._end(f"can't start: {error}", None)

    def _restore(self, opened: Opened) -> None:
        """The machine, and who the members are, from its snapshot. Raises ``StartError``."""
        self._membership = founded_with(self._around.plan, self.name)
        if opened.snapshot is not None:
            restoring = self.machine.restorer()
            with opened.snapshots.open(opened.snapshot) as reader:
                self._membership = decode_membership(reader.extra)
                for chunk in reader:
                    restoring.feed(chunk)
            restoring.finish()
            self._world.probes["start from a snapshot"] += 1

    def _build(self, opened: Opened) -> None:
        plan, recovered = self._around.plan, opened.recovered
        durable = recovered.groups.get(GroupId(0), GroupState())
        self._around.checks.restarted(self.name, recovered.incarnation, durable, opened.snapshot)
        applied = opened.snapshot.index if opened.snapshot else Index(0)
        node = Node(
            self.name,
            self._membership,
            uniform=self._world.random.uniform,
            now_ms=self.clock_ms,
            hard_state=durable.hard_state,
            log=Log(durable.entries, durable.boundary),
            applied=applied,
            timing=plan.timing,
            limits=plan.limits,
        )
        self.replica = Replica(
            node,
            self.machine,
            incarnation=recovered.incarnation,
            applied=applied,
            limits=plan.replica_limits,
        )
        self.snapshots = Snapshots(self, self._around, opened, durable.boundary.index)
        self._position = self._around.checks.batches[applied]
        self._check_machine(whole=True)
        self._disk = SimDisk(
            self._world,
            opened.wal,
            self.durable,
            run=self.later,
            sync_ms=self.sync_ms,
            on_confirmed=self._around.checks.disk_changed,
        )
        self._promised: deque[list[Envelope]] = deque()
        self._fresh: deque[tuple[float, int]] = deque(maxlen=50)  # (when, committed by then)
        self._turn_due = False
        self._timer_due_ms = float("inf")
        self._timer = 0

    def leave(self) -> None:
        """SIGTERM."""
        self.is_leaving = True
        self.later(0.0, Leaving(self, self._world, self._around.plan).begin)

    def stop(self) -> None:
        """The end of its own accord: whoever still waits is told."""
        self._fail_all("this node is stopping")
        self._end("stops as it was told", None)

    def _fail_all(self, detail: str) -> None:
        assert self.replica is not None
        for answer in self.replica.fail_all(ShuttingDown, detail):
            self._around.answered(self, answer)

    def _has_ended(self) -> None:
        self.replica = None
        self._around.on_end(self)

    def _disk_failed(self, error: StartError) -> None:
        """As the driver stops: whoever waits is told, then the process ends."""
        self._world.probes["disk failure stopped a node"] += 1
        self._fail_all("the disk failed")
        self._end(f"stops: {error}", None)

    def sync_ms(self) -> float:
        return self.slow_ms + self._world.random.expovariate(1 / self._around.plan.fsync_ms)

    # -- what comes in -------------------------------------------------------------------------------------

    def propose(self, command: bytes, ticket: Any, timeout_ms: float) -> None:
        """Raises ``RaftkvError`` as ``Replica.propose`` does."""
        assert self.replica is not None
        self.replica.propose(command, ticket, self.clock_ms + timeout_ms)
        self.wake()

    def barrier(self, ticket: Any, timeout_ms: float, *, by_lease: bool = False) -> None:
        assert self.replica is not None
        self.replica.barrier(ticket, self.clock_ms + timeout_ms, by_lease=by_lease)
        self.wake()

    def transfer(self, target: NodeId | None, ticket: Any, timeout_ms: float) -> None:
        assert self.replica is not None
        self.replica.transfer(target, ticket, self.clock_ms + timeout_ms)
        self.wake()

    def change_members(self, change: Change, force: bool, ticket: Any, timeout_ms: float) -> None:
        assert self.replica is not None
        self.replica.change_members(change, force, ticket, self.clock_ms + timeout_ms)
        self.wake()

    @property
    def has_waiting(self) -> bool:
        return self.replica is not None and any(self.replica.waiting.values())

    @property
    def leads(self) -> bool:
        return self.replica is not None and isinstance(self.replica.node.role, Leader)

    @property
    def takes_requests(self) -> bool:
        return self.is_up and self.door_is_open and not self._paused

    def receive(self, envelopes: Sequence[Envelope]) -> None:
        self.in_process(partial(self._receive, envelopes))

    def _receive(self, envelopes: Sequence[Envelope]) -> None:
        replica = self.replica
        assert replica is not None
        replica.clock(self.clock_ms)
        for envelope in envelopes:
            self._world.note(f"{envelope.sender}@{envelope.term} ⇒ {self.name}")
            if isinstance(envelope.message, TimeoutNow) and envelope.term < replica.node.current_term:
                self._world.probes["TimeoutNow ignored"] += 1
            replica.step(envelope)
            if isinstance(envelope.message, LeaseGrant | LeaseRead):
                self._check_leases()
        self._note_freshness(replica)
        self.wake()

    def peer_lost(self, peer: NodeId) -> None:
        self.in_process(partial(self._peer_lost, peer))

    def _peer_lost(self, peer: NodeId) -> None:
        assert self.replica is not None
        self._world.note(f"{self.name} loses {peer}")
        self.replica.clock(self.clock_ms)
        self.replica.peer_lost(peer)
        self.wake()

    # -- the turn ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.later(TURN_MS, self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        replica = self.replica
        assert replica is not None
        replica.tick(self.clock_ms)
        ready = replica.take_ready()
        self._note_freshness(replica)
        self._around.checks.turn_ended(replica.node, ready)
        self._check_leases()
        self._carry_out(ready)
        if ready.installed is not None:
            self.snapshots.installing(ready.installed)
            self._position = self._around.checks.batches[ready.installed.index]
        answers = replica.apply(ready)
        self._check_machine(whole=ready.installed is not None)
        self.snapshots.turned(ready)
        for answer in answers:
            if not isinstance(answer[1], RaftkvError) and ready.reads:
                self._world.probes["read granted"] += 1
            self._around.answered(self, answer)
        if replica.has_more:
            self.wake()
        self._set_timer(replica.due_ms)

    def _note_freshness(self, replica: Replica) -> None:
        """What a machine must hold to be called as fresh as the node says it is now."""
        fresh_ms = replica.node.fresh_ms
        if not self._fresh or self._fresh[-1][0] < fresh_ms:
            self._fresh.append((fresh_ms, replica.node.commit_index))

    def freshness_holds(self) -> bool:
        """Whether the machine holds what its node had committed at the time it claims to be as fresh as."""
        assert self.replica is not None
        claimed_ms = self.replica.fresh_ms
        held = max((index for fresh_ms, index in self._fresh if fresh_ms <= claimed_ms), default=0)
        return self.replica.last_applied >= held

    def _carry_out(self, ready: Ready) -> None:
        if ready.messages:
            self._around.checks.messages_leave(self.name, ready.messages)
            self._around.network.send(ready.messages)
        if ready.write is not None:
            self._promised.append(list(ready.promises))
            self._disk.write(ready.write, partial(self._on_durable, ready))
        elif ready.promises:
            if self._promised:
                self._promised[-1].extend(ready.promises)
            else:
                self._send_promises(ready.promises)

    def _on_durable(self, ready: Ready) -> None:
        assert self.replica is not None
        self._send_promises(self._promised.popleft())
        if self.replica.persisted(ready.mark):
            self.wake()

    def _send_promises(self, promises: Sequence[Envelope]) -> None:
        self._around.checks.promises_leave(self.name, promises)
        self._around.network.send(promises)

    def drop_before(self, index: Index) -> None:
        self._disk.drop_before(index, lambda: None)

    def _set_timer(self, due_ms: float) -> None:
        """A timer that is due earlier stays, as in the driver."""
        if due_ms < self._timer_due_ms:
            self._timer_due_ms = due_ms
            self._timer += 1
            delay_ms = max(0.0, due_ms - self.clock_ms) / self._clock_rate
            self.later(delay_ms, partial(self._on_timer, self._timer))

    def _on_timer(self, timer: int) -> None:
        if timer == self._timer:
            self._timer_due_ms = float("inf")
            self.wake()

    def _check_machine(self, *, whole: bool) -> None:
        """It is where the log was applied to: by its revision, or in ``whole``."""
        assert self.replica is not None
        reference, batches = self._around.reference, self._around.checks.batches[self.replica.last_applied]
        if self._position != batches:
            raise InvariantBroken(
                f"{self.name} has applied {self._position} batches; it says that it has applied entry "
                f"{self.replica.last_applied}, which is {batches} batches"
            )
        reference.check_machine(self.name, batches, self.machine)
        if whole:
            reference.check_image(self.name, batches, self.machine.export())

    def _check_leases(self) -> None:
        around = self._around
        if around.plan.timing.lease_ms and self.leads:
            check_lease(self, around.servers, around.checks)
            check_leader(self, around.servers.values())

    def _applied(self, time_ms: int, data: bytes, applied: Applied | None) -> None:
        if applied is not None and applied.results is None:
            self._world.probes["duplicate batch dropped"] += 1
        self._around.reference.applied(self._position, time_ms, data, applied)
        self._position += 1
