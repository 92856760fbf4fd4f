"""A node's process in virtual time: its starts, turns, timers, pauses and ends, as ``server/driver.py`` and
``server/app.py`` do them, with another disk and other links.

A call scheduled for a process happens only if that process still lives then; while it is paused such calls
wait. A process's own clock runs at its own rate from its own start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from raftkv.consensus.log import Log
from raftkv.consensus.messages import Envelope, TimeoutNow
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import GroupId, NodeId
from raftkv.errors import RaftkvError, ShuttingDown, StartError
from raftkv.kv.machine import Applied, KvMachine
from raftkv.replica import Replica
from raftkv.sim.checks import Checks
from raftkv.sim.disk import Durable, SimDisk
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.sim.leaving import Leaving
from raftkv.sim.network import Network
from raftkv.sim.plan import Plan
from raftkv.sim.reference import Reference
from raftkv.sim.world import Call, World
from raftkv.storage.segment import EXIT_DAMAGED, EXIT_DISK
from raftkv.storage.wal import GroupState, Recovered, Wal
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


class _Watched(Protocol):
    def __call__(self, data: bytes, applied: Applied | None) -> None: ...


class WatchedMachine(KvMachine):
    """The real machine, and every result shown to ``watch``."""

    def __init__(self, watch: _Watched) -> None:
        super().__init__()
        self._watch = watch

    def apply(self, time_ms: int, data: bytes) -> Applied | None:
        applied = super().apply(time_ms, data)
        self._watch(data, applied)
        return applied


class SimServer:
    def __init__(self, name: NodeId, around: Surroundings, durable: Durable) -> None:
        self.name = name
        self.files = SimFiles(around.world.random)
        self.durable = durable
        self.is_up = False
        self.is_leaving = False  # it was told to stop
        self.door_is_open = True
        self.is_damaged = False  # a bit of its disk was flipped: it must never start again
        self.slow_ms = 0.0  # what each sync takes longer
        self.machine = WatchedMachine(self._applied)
        self.replica: Replica | None = None
        self.life = 0
        self._around = around
        self._world = around.world
        self.resumed_ms = 0.0
        self._paused = False
        self._deferred: list[Call] = []
        self._start_clock(1.0)

    # -- its life ------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Whether it is up afterwards. Raises ``AssertionError`` where it starts on a damaged disk, or
        refuses a sound one.
        """
        plan, world, random = self._around.plan, self._world, self._world.random
        self.life += 1
        try:
            wal, recovered = Wal.open(
                self.files, DIRECTORY, CLUSTER_ID, self.name, segment_bytes=plan.segment_bytes
            )
        except PowerCut:
            self._end("loses power while it starts", random.choice(list(Tear)))
            return False
        except StartError as error:
            self._refused(error)
            return False
        if self.is_damaged:
            raise AssertionError(f"{self.name} starts on a damaged disk")
        if recovered.dropped_tail_bytes:
            world.probes["torn tail dropped"] += 1
        self._start_clock(1 + random.uniform(-plan.clock_drift, plan.clock_drift))
        self._build(wal, recovered)
        self.is_up, self._paused, self._deferred = True, False, []
        self.is_leaving, self.door_is_open = False, True
        world.note(f"{self.name} starts, incarnation {recovered.incarnation}")
        self._wake()
        return True

    def _refused(self, error: StartError) -> None:
        damaged = error.exit_code == EXIT_DAMAGED
        if damaged != self.is_damaged and not (error.exit_code == EXIT_DISK):
            raise AssertionError(f"{self.name} refuses a sound disk: {error}")
        self._world.probes["damage refused" if damaged else "start failed on a bad disk"] += 1
        self._end(f"can't start: {error}", None)

    def _build(self, wal: Wal, recovered: Recovered) -> None:
        plan = self._around.plan
        durable = recovered.groups.get(GroupId(0), GroupState())
        self._around.checks.restarted(self.name, recovered.incarnation, durable.hard_state, durable.entries)
        self.machine = WatchedMachine(self._applied)
        self._position = 0
        node = Node(
            self.name,
            plan.membership,
            uniform=self._world.random.uniform,
            now_ms=self.clock_ms,
            hard_state=durable.hard_state,
            log=Log(durable.entries, durable.boundary),
            timing=plan.timing,
            limits=plan.limits,
        )
        self.replica = Replica(
            node, self.machine, incarnation=recovered.incarnation, limits=plan.replica_limits
        )
        self._disk = SimDisk(
            self._world,
            wal,
            self.durable,
            run=self._after,
            sync_ms=self._sync_ms,
            on_confirmed=self._around.checks.disk_changed,
        )
        self._promised: deque[list[Envelope]] = deque()
        self._fresh: deque[tuple[float, int]] = deque(maxlen=50)  # (when, committed by then)
        self._turn_due = False
        self._timer_due_ms = float("inf")
        self._timer = 0

    def power_cut(self, tear: Tear) -> None:
        self._end(f"loses power, {tear.value}", tear)

    def kill(self) -> None:
        self._end("is killed", None)

    def leave(self) -> None:
        """SIGTERM."""
        self.is_leaving = True
        self._after(0.0, Leaving(self, self._world, self._around.plan).begin)

    def stop(self) -> None:
        """The end of its own accord: whoever still waits is told."""
        self._fail_all("this node is stopping")
        self._end("stops as it was told", None)

    def _fail_all(self, detail: str) -> None:
        assert self.replica is not None
        for answer in self.replica.fail_all(ShuttingDown, detail):
            self._around.answered(self, answer)

    def _end(self, how: str, tear: Tear | None) -> None:
        self._world.note(f"{self.name} {how}")
        if tear is None:
            self.files.kill()
        else:
            self.files.crash(tear)
        self.is_up, self.replica = False, None
        self.life += 1
        self._around.on_end(self)

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

    def later(self, delay_ms: float, call: Call) -> None:
        """Within this life, and not while it is paused."""
        self._after(delay_ms, call)

    def _after(self, delay_ms: float, call: Call) -> None:
        self._world.after(delay_ms, partial(self._run, self.life, call))

    def _run(self, life: int, call: Call) -> None:
        """Do ``call`` in the process it was scheduled for, and end that if its disk fails in it."""
        if life != self.life:
            return
        if self._paused:
            self._deferred.append(partial(self._run, life, call))
            return
        try:
            call()
        except PowerCut:
            self.power_cut(self._world.random.choice(list(Tear)))
        except StartError as error:
            if error.exit_code != EXIT_DISK:
                raise
            self._disk_failed(error)

    def _disk_failed(self, error: StartError) -> None:
        """As the driver stops: whoever waits is told, then the process ends."""
        self._world.probes["disk failure stopped a node"] += 1
        self._fail_all("the disk failed")
        self._end(f"stops: {error}", None)

    def _sync_ms(self) -> float:
        return self.slow_ms + self._world.random.expovariate(1 / self._around.plan.fsync_ms)

    # -- what comes in -------------------------------------------------------------------------------------

    def propose(self, command: bytes, ticket: Any, timeout_ms: float) -> None:
        """Raises ``RaftkvError`` as ``Replica.propose`` does."""
        assert self.replica is not None
        self.replica.propose(command, ticket, self.clock_ms + timeout_ms)
        self._wake()

    def barrier(self, ticket: Any, timeout_ms: float) -> None:
        assert self.replica is not None
        self.replica.barrier(ticket, self.clock_ms + timeout_ms)
        self._wake()

    def transfer(self, target: NodeId | None, ticket: Any, timeout_ms: float) -> None:
        assert self.replica is not None
        self.replica.transfer(target, ticket, self.clock_ms + timeout_ms)
        self._wake()

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
        if self.is_up:
            self._run(self.life, partial(self._receive, envelopes))

    def _receive(self, envelopes: Sequence[Envelope]) -> None:
        replica = self.replica
        assert replica is not None
        replica.clock(self.clock_ms)
        for envelope in envelopes:
            self._world.note(f"{envelope.sender}@{envelope.term} ⇒ {self.name}")
            if isinstance(envelope.message, TimeoutNow) and envelope.term < replica.node.current_term:
                self._world.probes["TimeoutNow ignored"] += 1
            replica.step(envelope)
        self._note_freshness(replica)
        self._wake()

    def peer_lost(self, peer: NodeId) -> None:
        if self.is_up:
            self._run(self.life, partial(self._peer_lost, peer))

    def _peer_lost(self, peer: NodeId) -> None:
        assert self.replica is not None
        self._world.note(f"{self.name} loses {peer}")
        self.replica.clock(self.clock_ms)
        self.replica.peer_lost(peer)
        self._wake()

    # -- the turn ------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._after(TURN_MS, self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        replica = self.replica
        assert replica is not None
        replica.tick(self.clock_ms)
        ready = replica.take_ready()
        self._note_freshness(replica)
        self._around.checks.turn_ended(replica.node, ready)
        self._carry_out(ready)
        for answer in replica.apply(ready):
            if not isinstance(answer[1], RaftkvError) and ready.reads:
                self._world.probes["read granted"] += 1
            self._around.answered(self, answer)
        if replica.has_more:
            self._wake()
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
        self.replica.persisted(ready.mark)
        self._wake()

    def _send_promises(self, promises: Sequence[Envelope]) -> None:
        self._around.checks.promises_leave(self.name, promises)
        self._around.network.send(promises)

    def _set_timer(self, due_ms: float) -> None:
        """A timer that is due earlier stays, as in the driver."""
        if due_ms < self._timer_due_ms:
            self._timer_due_ms = due_ms
            self._timer += 1
            delay_ms = max(0.0, due_ms - self.clock_ms) / self._clock_rate
            self._after(delay_ms, partial(self._on_timer, self._timer))

    def _on_timer(self, timer: int) -> None:
        if timer == self._timer:
            self._timer_due_ms = float("inf")
            self._wake()

    def _applied(self, data: bytes, applied: Applied | None) -> None:
        if applied is not None and applied.results is None:
            self._world.probes["duplicate batch dropped"] += 1
        self._around.reference.applied(self._position, data, applied)
        self._position += 1
