"""Clients that write, read and delete through random nodes, and what they were told, checked as they hear it.

Every answer that carries a revision has a place in one total order, so linearizability needs no search: a
write's revision lies above, a read's not below, every revision acknowledged before it began; a read's value
is the replay at its revision; what was refused as not applied never happened.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.types import Entry
from raftkv.errors import Outcome, RaftkvError
from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.results import DeleteResult, Malformed, PutResult, Refused
from raftkv.sim.plan import Plan
from raftkv.sim.reference import Reference
from raftkv.sim.requests import Request, Requests
from raftkv.sim.server import TURN_MS, SimServer
from raftkv.sim.world import World
from raftkv.waiting import Answer

MAX_LATE_MS = 1.0  # an answer may come a turn after its timeout


@dataclass(slots=True)
class Operation:
    number: int
    client: int
    key: bytes
    value: bytes | None  # None: a read or a delete
    is_read: bool
    floor: int  # the highest revision that anyone had been told when it began
    server: SimServer
    life: int  # of the server's process
    began_ms: float
    due_ms: float  # by the server's own clock
    by_lease: bool  # a read for which the leader's lease will do
    committed: int  # entries, as far as any node knew when it began
    outcome: str = ""  # "ok", "not_applied" or "unknown"; "" while it waits
    request: Request | None = None  # of level 2

    def __str__(self) -> str:
        if self.request is not None:
            return f"c{self.client} #{self.number} {self.request.name}"
        kind = (
            "get"
            if self.is_read and not self.by_lease
            else "get by lease"
            if self.is_read
            else "delete"
            if self.value is None
            else "put"
        )
        return f"c{self.client} #{self.number} {kind} {self.key.decode()}"


class Clients:
    """``count`` clients, each with one operation at a time."""

    def __init__(self, world: World, plan: Plan, reference: Reference, committed: Sequence[Entry]) -> None:
        """``committed``: what any node knows to be; it grows."""
        self._committed = committed
        self._world = world
        self._plan = plan
        self._reference = reference
        self.servers: list[SimServer] = []
        self.waiting: dict[int, Operation] = {}
        self.operations = 0
        self.outcomes: dict[str, int] = {"ok": 0, "not_applied": 0, "unknown": 0}
        self._acknowledged = 0  # the highest revision that anyone was told
        self._told: list[tuple[float, int]] = [(float("-inf"), 0)]  # (when, the highest until then)
        self._not_applied: list[Operation] = []
        self._known: dict[bytes, int] = {}  # the last mod_revision anyone was told of each key
        self._requests = Requests(world, plan, plan.features, reference) if plan.features else None
        self._stopped = False

    def start(self) -> None:
        for client in range(self._plan.clients):
            self._think(client)

    def stop(self) -> None:
        """No new operations."""
        self._stopped = True

    def _think(self, client: int) -> None:
        pause_ms = self._world.random.expovariate(1 / self._plan.think_ms)
        self._world.after(pause_ms, partial(self._next, client))

    def _next(self, client: int) -> None:
        if not self._stopped:
            random = self._world.random
            servers = [server for server in self.servers if server.takes_requests]
            if not servers or random.random() < 0.02:
                servers = self.servers
            self.ask(client, random.choice(servers), self._plan.timeout_ms)

    # -- asking --------------------------------------------------------------------------------------------

    def ask(
        self, client: int, server: SimServer, timeout_ms: float, *, is_read: bool | None = None
    ) -> Operation:
        """One operation at ``server``, drawn but for what is given. The client goes on with the answer."""
        random, plan = self._world.random, self._plan
        if is_read is None:
            is_read = random.random() < plan.reads
        key = b"k%d" % random.randrange(plan.keys)
        by_lease = is_read and plan.lease_reads > 0 and random.random() < plan.lease_reads
        self.operations += 1
        operation = Operation(
            self.operations, client, key, None, is_read, self._acknowledged, server, server.life,
            self._world.now_ms,
            server.clock_ms + timeout_ms,
            by_lease,
            len(self._committed),
        )  # fmt: skip
        if not is_read:
            command = self._write(operation)
        self._world.note(f"{operation} at {server.name}")
        if server.takes_requests and not server.freshness_holds():
            raise InvariantBroken(f"freshness: {server.name} claims to hold what it has not applied")
        if server.takes_requests:
            self._check_vouched(server)
        if not server.takes_requests:
            self._ended(operation, "not_applied")
            return operation
        self.waiting[operation.number] = operation
        try:
            if is_read:
                server.barrier(operation, timeout_ms, by_lease=by_lease)
            else:
                server.propose(command, operation, timeout_ms)
        except RaftkvError as error:
            self.answered(server, (operation, error))
        return operation

    def _check_vouched(self, server: SimServer) -> None:
        """Whatever anybody was told before the time for which ``server`` vouches is in its machine."""
        assert server.replica is not None
        vouched_ms = server.world_ms(server.replica.vouched_ms)
        _, told = self._told[bisect_right(self._told, vouched_ms, key=lambda each: each[0]) - 1]
        if server.machine.store.revision < told:
            raise InvariantBroken(
                f"bounded staleness: {server.name} is at revision {server.machine.store.revision} and "
                f"vouches for all until {vouched_ms} ms, when {told} was acknowledged"
            )

    def _acknowledge(self, revision: int) -> None:
        if revision > self._acknowledged:
            self._acknowledged = revision
            self._told.append((self._world.now_ms, revision))

    def _write(self, operation: Operation) -> bytes:
        random, key = self._world.random, operation.key
        if self._requests and operation.server.machine.level > 1 and self._requests.wants():
            request = operation.request = self._requests.draw(operation.floor, self._known)
            operation.value = request.value
            return request.command
        condition = None
        if random.random() < self._plan.conditions:
            kind = random.choice(list(ConditionKind))
            revisions = (self._known.get(key, 0),) if "REVISION" in kind.name else ()
            condition = Condition(kind, revisions)
        if random.random() < 0.2:
            return encode_delete(key, condition)
        size = random.randint(0, self._plan.value_bytes)
        padding = random.choice((bytes(size), random.randbytes(size), b"x" * size))
        operation.value = b"%d:" % operation.number + padding
        return encode_put(key, operation.value, None, condition)

    # -- answers -------------------------------------------------------------------------------------------

    def answered(self, server: SimServer, answer: Answer) -> None:
        operation, result = answer
        if self.waiting.pop(operation.number, None) is None:
            raise InvariantBroken(f"{operation} is answered twice")
        try:
            late_ms = server.clock_ms - operation.due_ms
            if late_ms > MAX_LATE_MS and server.resumed_ms < operation.began_ms:
                raise InvariantBroken(f"no request hangs: answered {late_ms} ms after its timeout")
            outcome = self._judge(operation, server, result)
        except InvariantBroken as broken:
            raise InvariantBroken(f"{operation} at {server.name}: {result}: {broken}") from None
        self._ended(operation, outcome)

    def server_ended(self, server: SimServer) -> None:
        """Those who wait there will never hear."""
        for operation in list(self.waiting.values()):
            if operation.server is server:
                del self.waiting[operation.number]
                self._ended(operation, "unknown")

    def _ended(self, operation: Operation, outcome: str) -> None:
        operation.outcome = outcome
        self.outcomes[outcome] += 1
        if outcome == "not_applied" and operation.value is not None:
            self._not_applied.append(operation)
        if self._requests and operation.request is not None:
            self._requests.ended(operation.request, outcome)
        self._world.note(f"{operation} {outcome}")
        self._think(operation.client)

    def _judge(self, operation: Operation, server: SimServer, result: object) -> str:
        reference, floor = self._reference, operation.floor
        match result:
            case RaftkvError(outcome=Outcome.UNKNOWN):
                self._world.probes["request unknown"] += 1
                if operation.is_read:
                    raise InvariantBroken("a read has no unknown outcome")
                return "unknown"
            case RaftkvError():
                self._world.probes["request not applied"] += 1
                return "not_applied"
            case None if operation.is_read:
                self._judge_read(operation, server)
                return "ok"
            case _ if self._requests and operation.request is not None:
                revision = self._requests.judge(operation.request, result)
            case PutResult(revision=revision):
                if revision <= floor:
                    raise InvariantBroken(f"real time: {floor} was acknowledged before it began")
                self._check_changed(operation, revision)
                self._known[operation.key] = revision
            case DeleteResult(deleted=deleted, revision=revision):
                if revision < floor + deleted:
                    raise InvariantBroken(f"real time: {floor} was acknowledged before it began")
                if deleted:
                    self._check_changed(operation, revision)
            case Refused(mod_revision=modified, revision=revision):
                self._world.probes["condition refused"] += 1
                if revision < floor or reference.at(operation.key, revision)[0] != modified:
                    raise InvariantBroken(f"a condition judged on an older state than {floor}")
                self._known[operation.key] = modified
            case Malformed() | _:
                raise InvariantBroken("no result of this operation")
        self._acknowledge(revision)
        return "ok"

    def _check_changed(self, operation: Operation, revision: int) -> None:
        changed = self._reference.changed(revision)
        if changed != {operation.key: operation.value}:
            raise InvariantBroken(f"revision {revision} is {changed!r}")

    def _judge_read(self, operation: Operation, server: SimServer) -> None:
        store = server.machine.store
        if store.revision < operation.floor:
            raise InvariantBroken(
                f"linearizable reads: answered at revision {store.revision}, and {operation.floor} was "
                "acknowledged before it began"
            )
        assert server.replica is not None
        if server.replica.last_applied < operation.committed:
            raise InvariantBroken(
                f"linearizable reads: answered with {server.replica.last_applied} applied, and entry "
                f"{operation.committed} was committed before it began"
            )
        item = store.get(operation.key)
        found = (0, None) if item is None else (item.mod_revision, item.value)
        expected = self._reference.at(operation.key, store.revision)
        if found != expected:
            raise InvariantBroken(f"reads {found!r}, the replay says {expected!r}")
        self._acknowledge(store.revision)
        self._known[operation.key] = found[0]
        if self._requests:
            self._requests.read_past(server.machine)
        if operation.by_lease and server.leads and self._plan.size > 1:
            # In the turn that it came with: no round of heartbeats is as quick.
            if self._world.now_ms - operation.began_ms < 2 * TURN_MS:
                self._world.probes["read under the lease"] += 1
        elif operation.by_lease:
            self._world.probes["read asked for under the leader's lease"] += 1
        if self._world.now_ms - operation.began_ms > self._plan.replica_limits.resend_ms:
            self._world.probes["read confirmed late"] += 1  # it had to be asked again

    def check_not_applied(self) -> None:
        """At the end: what anyone was told didn't happen never did."""
        for operation in self._not_applied:
            if operation.value is not None and self._reference.wrote(operation.value):
                raise InvariantBroken(f"{operation} was answered as not applied, and was")
