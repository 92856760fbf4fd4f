"""One seed from beginning to end: a cluster under faults, then a majority of it left in peace.

Safety is checked after every step. Then *liveness*: a random majority is healed, the others stay dead or cut
off, and within a bounded virtual time everyone who waits is answered, the survivors hold one state, and a
write and a read through each of them succeed.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from raftkv.consensus.messages import Envelope
from raftkv.consensus.quorum import majority
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Entry, Membership, NodeId
from raftkv.errors import RaftkvError
from raftkv.kv.levels import MACHINE_LEVEL
from raftkv.sim.checks import Checks
from raftkv.sim.clients import Clients
from raftkv.sim.disk import Durable
from raftkv.sim.faults import Faults
from raftkv.sim.features import HouseTicket, with_features
from raftkv.sim.files import Tear
from raftkv.sim.joining import MembersTicket, membership_after, with_spares
from raftkv.sim.leaving import Handover
from raftkv.sim.network import Network
from raftkv.sim.plan import Plan, draw
from raftkv.sim.reference import Reference
from raftkv.sim.schedule import draw_schedule
from raftkv.sim.server import SimServer, Surroundings
from raftkv.sim.traps import with_traps
from raftkv.sim.watcher import Watcher
from raftkv.sim.world import World
from raftkv.waiting import Answer

MAX_FAULTY_EVENTS = 15_000  # then calm comes early: many short runs find more than few long ones
MAX_EVENTS = 2_000_000  # a run that does more than this gets nowhere
RECOVERS_WITHIN_TIMEOUTS = 30  # of the longest election timeout
LOOK_EVERY_MS = 5.0
SHOWN_LINES = 60


class NotLive(Exception):
    """The survivors didn't get there in time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed came to. ``failure`` is None, or what went wrong in one line."""

    seed: int
    failure: str | None
    digest: str  # of the whole trace
    events: int
    virtual_ms: float
    operations: int
    outcomes: dict[str, int]
    size: int
    strikes: tuple[int, ...] = ()  # numbers of the faults that struck, in order
    schedule: tuple[str, ...] = ()  # the same in words
    probes: Counter[str] = field(default_factory=Counter)
    story: str = ""  # the trace's end, and where a failure was raised


class Run:
    def __init__(self, seed: int, only: frozenset[int] | None = None) -> None:
        self.seed = seed
        self.world = World(seed)
        plan = with_spares(draw(self.world.random), Random(f"members of {seed}"))
        plan = with_traps(plan, Random(f"traps of {seed}"))
        self.plan: Plan = with_features(plan, Random(f"machine of {seed}"))
        strikes = draw_schedule(self.world.random, self.plan.faults, self.plan.duration_ms)
        self.schedule = [strike for strike in strikes if only is None or strike.number in only]
        names = self.plan.names
        committed: list[Entry] = []
        disks = {name: Durable(committed) for name in names}
        self.reference = Reference()
        self.checks = Checks(self.world, disks, committed, self.plan.membership)
        self.network = Network(self.world, self.plan.network, names, self._deliver, self._peer_lost)
        self.clients = Clients(self.world, self.plan, self.reference, committed)
        around = Surroundings(
            self.world, self.plan, self.checks, self.reference, self.network, self._answered, self._ended
        )
        self.servers = {name: SimServer(name, around, disks[name]) for name in names}
        around.servers = self.servers
        self.clients.servers = list(self.servers.values())
        self.faults = Faults(self.world, self.plan, self.network, self.clients.servers)
        self.watcher: Watcher | None = None
        if self.plan.features is not None:
            self.watcher = Watcher(self.world, self.plan.features, self.reference, self.clients.servers)
        around.on_stage = self.faults.in_snapshot
        self.checks.on_election, self.checks.on_commit = self.faults.elected, self.faults.committed

    # -- what ties the parts together ----------------------------------------------------------------------

    def _deliver(self, receiver: NodeId, frame: Sequence[Envelope]) -> None:
        self.servers[receiver].receive(frame)

    def _peer_lost(self, told: NodeId, lost: NodeId) -> None:
        self.servers[told].peer_lost(lost)

    def _answered(self, server: SimServer, answer: Answer) -> None:
        ticket, result = answer
        if isinstance(ticket, Handover):
            self.checks.handover_answered(server.name, result)
            ticket.then(result)
        elif isinstance(ticket, MembersTicket):
            told = "refused" if isinstance(result, RaftkvError) else "answered"
            self.world.probes[f"change of members {told}"] += 1
        elif isinstance(ticket, HouseTicket):
            ticket.is_answered = True
        else:
            self.clients.answered(server, answer)

    def _ended(self, server: SimServer) -> None:
        self.clients.server_ended(server)
        self.faults.server_ended(server)

    # -- the run -------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Raises whatever went wrong."""
        self.world.note(f"seed {self.seed} {self.plan}")
        for server in self.servers.values():
            server.start()
        self.clients.start()
        if self.watcher is not None:
            self.watcher.start()
        self.faults.start(self.schedule)
        while self.world.now_ms < self.plan.duration_ms and self.world.events < MAX_FAULTY_EVENTS:
            self.world.run(self.world.now_ms + LOOK_EVERY_MS)
        self._become_calm()

    def _become_calm(self) -> None:
        world, random, plan = self.world, self.world.random, self.plan
        self.faults.stop()
        self.clients.stop()
        self.network.calm = True
        sound = [server for server in self.servers.values() if not server.is_damaged]
        if not plan.spares:
            self._recover(random.sample(sound, random.randint(majority(plan.size), len(sound))))
            return
        # A change that was on its way to the leader may come yet; then it is about other members.
        for is_last in (False, False, True):
            self.network.mend_all()
            self._heal(sound)
            self._until(self._patience_ms, self._members_have_settled, sound)
            members = self._membership.members
            try:
                self._recover([self.servers[name] for name in members])
                return
            except NotLive:
                if is_last or self._membership.members == members:
                    raise
            world.note("the members have changed")

    @property
    def _patience_ms(self) -> float:
        timing = self.plan.timing
        return RECOVERS_WITHIN_TIMEOUTS * timing.election_timeout_max_ms + self.plan.timeout_ms

    def _recover(self, core: Sequence[SimServer]) -> None:
        within_ms = self._patience_ms
        self.network.mend_all()
        self.world.note("a majority is healed: " + " ".join(server.name for server in core))
        for server in self.servers.values():
            if server not in core:
                self._leave_behind(server)
        self._heal(core)
        self._until(within_ms, lambda: self._has_converged(core), core)
        self._serve(core)
        self._until(within_ms, lambda: self._has_converged(core), core)
        if self.plan.features is not None:
            within_ms += max(self.plan.features.ttl_ms)
            self._until(within_ms, lambda: self._has_settled(core), core)
        self.clients.check_not_applied()

    @property
    def _membership(self) -> Membership:
        return membership_after(self.plan.membership, self.checks.committed)

    def _members_have_settled(self) -> bool:
        """Whether one leads, and nothing of a change is left to do. What is decided doesn't change then."""
        membership = self._membership
        nodes = [self.servers[name].replica for name in membership.members]
        leads = [each for each in nodes if each is not None and isinstance(each.node.role, Leader)]
        return (
            len(leads) == 1
            and leads[0].node.membership == membership
            and leads[0].node.membership_since <= leads[0].node.commit_index
            and not membership.is_joint
            and not any(each.promote for each in membership.learners)
            and not any(replica.waiting["changes"] for replica in nodes if replica is not None)
            and all(each is not None and each.node.leader == leads[0].node.node_id for each in nodes)
        )

    def _heal(self, servers: Sequence[SimServer]) -> None:
        for server in servers:
            server.files.mend()
            server.slow_ms = 0.0
            if server.is_leaving:
                server.kill()
            if server.is_up:
                server.resume()
            else:
                server.start()

    def _leave_behind(self, server: SimServer) -> None:
        if server.is_up and self.world.random.random() < 0.5:
            server.power_cut(Tear.LOST)
        # NB: one that is only deaf, or only mute, must not disturb the others either.
        side = self.world.random.choice((None, None, 0, 1))
        self.network.cut(
            link
            for link in self.network.links
            if (server.name in link if side is None else link[side] == server.name)
        )

    def _serve(self, core: Sequence[SimServer]) -> None:
        """A write and a read through every survivor, which must succeed. Only whose result came within a
        snapshot may not know, and is asked again.
        """
        patience_ms = RECOVERS_WITHIN_TIMEOUTS * self.plan.timing.election_timeout_max_ms
        waiting = [(server, is_read) for server in core for is_read in (False, True)]
        while waiting:
            installed = {server.name: server.snapshots.installed for server in core}
            asked = [self.clients.ask(0, server, patience_ms, is_read=is_read) for server, is_read in waiting]
            self._until(2 * patience_ms, lambda asked=asked: all(each.outcome for each in asked), core)
            waiting = []
            for operation in asked:
                server, was_unknown = operation.server, operation.outcome == "unknown"
                if was_unknown and server.snapshots.installed > installed[server.name]:
                    waiting.append((server, operation.is_read))
                elif operation.outcome != "ok":
                    raise NotLive(f"{operation} at {server.name}: {operation.outcome}")

    def _until(self, within_ms: float, done: object, core: Sequence[SimServer]) -> None:
        assert callable(done)
        world = self.world
        deadline_ms = world.now_ms + within_ms
        while not done():
            if world.now_ms >= deadline_ms or world.events > MAX_EVENTS:
                raise NotLive(f"no recovery within {within_ms:.0f} ms: {self._picture(core)}")
            world.run(world.now_ms + LOOK_EVERY_MS)

    def _has_converged(self, core: Sequence[SimServer]) -> bool:
        replicas = [server.replica for server in core if server.replica is not None]
        if len(replicas) < len(core) or any(
            operation.server in core for operation in self.clients.waiting.values()
        ):
            return False
        nodes = [replica.node for replica in replicas]
        leaders = [node for node in nodes if isinstance(node.role, Leader)]
        return (
            len(leaders) == 1
            and all(node.leader == leaders[0].node_id for node in nodes)
            and len({(node.log.last_index, node.log.last_term) for node in nodes}) == 1
            and all(replica.last_applied == leaders[0].log.last_index for replica in replicas)
            and all(not any(replica.waiting.values()) for replica in replicas)
            and len({server.machine.store.revision for server in core}) == 1
        )

    def _has_settled(self, core: Sequence[SimServer]) -> bool:
        """All leases have ended, for nobody renews them, and who watches can see it anywhere."""
        if not self._has_converged(core) or any(len(server.machine.leases) for server in core):
            return False
        for server in core:
            assert self.watcher is not None
            self.watcher.pull(server, most=1 << 30)
        return all(server.machine.level == MACHINE_LEVEL for server in core)

    def _picture(self, core: Sequence[SimServer]) -> str:
        parts = [f"{len(self.clients.waiting)} requests wait"]
        for server in core:
            replica = server.replica
            if replica is None:
                parts.append(f"{server.name} is down")
                continue
            node = replica.node
            parts.append(
                f"{server.name}@{node.current_term} {type(node.role).__name__} of {node.leader}, log "
                f"{node.log.last_index}@{node.log.last_term}, commit {node.commit_index}, applied "
                f"{replica.last_applied}, {replica.waiting}"
            )
        return "; ".join(parts)

    def report(self, failure: BaseException | None) -> Report:
        world = self.world
        story = world.trace.end(SHOWN_LINES)
        if failure is not None:
            story += ["", "".join(traceback.format_exception(failure)).rstrip()]
        return Report(
            seed=self.seed,
            failure=None if failure is None else f"{type(failure).__name__}: {failure}",
            digest=world.trace.digest,
            events=world.events,
            virtual_ms=world.now_ms,
            operations=self.clients.operations,
            outcomes=self.clients.outcomes,
            size=self.plan.size,
            strikes=tuple(strike.number for strike in self.faults.struck),
            schedule=tuple(map(str, self.faults.struck)),
            probes=world.probes,
            story="\n".join(story),
        )


def play(seed: int, only: frozenset[int] | None = None) -> Report:
    """Run one seed, with all its faults or the ``only`` ones. Never raises for what the cluster does: that is
    the report's ``failure``.
    """
    run = Run(seed, only)
    try:
        run.play()
    except Exception as failure:  # whatever it is, with this seed it happens again
        return run.report(failure)
    return run.report(None)
