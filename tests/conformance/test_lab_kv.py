"""The scenarios of MIT 6.5840's key-value labs (2 and 4), in virtual time.

The generic test, with its dimensions (clients, an unreliable network, crashes of all, repartitioning), is a
run of the simulator with a plan of just these: it checks linearizability, and that each write is applied
once, as it goes (docs/simulator.md). The rest asks replicas directly.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from raftkv.consensus import Envelope
from raftkv.consensus.types import Limits, Timing
from raftkv.kv.results import PutResult
from raftkv.sim import play
from raftkv.sim import run as run_module
from raftkv.sim.plan import NetworkPlan, Plan, SnapshotPlan
from raftkv.waiting import ReplicaLimits
from tests.conformance.lab import Lab
from tests.replica.harness import Cluster, Server

SEEDS = 2
HEARTBEAT_MS = Timing().heartbeat_ms


@dataclass(frozen=True)
class Generic:
    """The dimensions of the labs' generic test."""

    clients: int = 5
    servers: int = 5
    unreliable: bool = False
    crashes: bool = False
    partitions: bool = False
    keys: int = 1
    conditions: float = 0.3
    snapshots: bool = False  # else none is ever taken
    long_cuts: bool = False  # of a follower, while the others take snapshots

    def plan(self) -> Plan:
        faults = [("storm", 2.0)] * self.crashes + [("split", 3.0)] * self.partitions
        faults += [("isolate_long", 2.0)] * self.long_cuts
        return Plan(
            size=self.servers,
            timing=Timing(),
            limits=Limits(),
            replica_limits=ReplicaLimits(),
            network=NetworkPlan(
                least_delay_ms=0.1,
                mean_delay_ms=13.0 if self.unreliable else 0.4,
                loss=0.1 if self.unreliable else 0.0,
                duplication=0.0,
                keeps_order=not self.unreliable,
                replay_ms=1.0,
                max_frames=1000,
            ),
            snapshots=SnapshotPlan(
                log_bytes=500 if self.snapshots else 0,
                margin=0,
                chunk_ms=0.1,
                stream_ms=0.05,
                patience_ms=300.0,
            ),
            fsync_ms=1.0,
            segment_bytes=1 << 16,
            clock_drift=0.0,
            faults=tuple(faults),
            outage_ms=300.0,
            duration_ms=7_000.0,
            clients=self.clients,
            keys=self.keys,
            think_ms=30.0,
            timeout_ms=5_000.0,
            reads=0.4,
            lease_reads=0.0,
            conditions=self.conditions,
            value_bytes=20,
        )


SCENARIOS = {
    "TestReliablePut": Generic(clients=1, servers=1, conditions=0.8),
    "TestPutConcurrentReliable": Generic(clients=10, servers=1, conditions=0.8),
    "TestUnreliableNet": Generic(clients=1, servers=2, unreliable=True, conditions=0.8),
    "TestBasic4B": Generic(clients=1),
    "TestConcurrent4B": Generic(),
    "TestUnreliable4B": Generic(unreliable=True),
    "TestManyPartitionsOneClient4B": Generic(clients=1, partitions=True),
    "TestManyPartitionsManyClients4B": Generic(partitions=True),
    "TestPersistOneClient4B": Generic(clients=1, crashes=True),
    "TestPersistConcurrent4B": Generic(crashes=True),
    "TestPersistConcurrentUnreliable4B": Generic(unreliable=True, crashes=True),
    "TestPersistPartition4B": Generic(crashes=True, partitions=True),
    "TestPersistPartitionUnreliable4B": Generic(unreliable=True, crashes=True, partitions=True),
    "TestPersistPartitionUnreliableLinearizable4B": Generic(
        clients=15, servers=7, unreliable=True, crashes=True, partitions=True, keys=5
    ),
    "TestUnreliableOneKey4A": Generic(unreliable=True, conditions=1.0),
    "TestSnapshotRPC4C": Generic(servers=3, snapshots=True, long_cuts=True),
    "TestSnapshotRecover4C": Generic(clients=1, crashes=True, snapshots=True),
    "TestSnapshotRecoverManyClients4C": Generic(clients=20, crashes=True, keys=5, snapshots=True),
    "TestSnapshotUnreliable4C": Generic(unreliable=True, snapshots=True),
    "TestSnapshotUnreliableRecover4C": Generic(unreliable=True, crashes=True, snapshots=True),
    "TestSnapshotUnreliableRecoverConcurrentPartition4C": Generic(
        unreliable=True, crashes=True, partitions=True, snapshots=True
    ),
    "TestSnapshotUnreliableRecoverConcurrentPartitionLinearizable4C": Generic(
        clients=15, servers=7, unreliable=True, crashes=True, partitions=True, keys=5, snapshots=True
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_generic(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = SCENARIOS[name]
    monkeypatch.setattr(run_module, "draw", lambda random: scenario.plan())
    monkeypatch.setattr(run_module, "with_spares", lambda plan, random: plan)
    probes, outcomes = Counter[str](), Counter[str]()
    for seed in range(SEEDS):
        report = play(seed)
        assert report.failure is None, f"seed {seed}: {report.failure}\n{report.story}"
        assert report.size == scenario.servers
        probes.update(report.probes)
        outcomes.update(report.outcomes)
    assert outcomes["ok"] > 20 * SEEDS, outcomes  # else it would show nothing
    assert bool(probes["fault storm"]) is scenario.crashes
    assert bool(probes["fault split"]) is scenario.partitions
    assert bool(probes["frame lost"]) is scenario.unreliable
    assert bool(probes["snapshot taken"]) is scenario.snapshots
    assert bool(probes["start from a snapshot"]) is (scenario.snapshots and scenario.crashes)
    assert probes["snapshot installed"] or not scenario.long_cuts
    if not (scenario.crashes or scenario.partitions or scenario.unreliable or scenario.long_cuts):
        # NB: at the end the simulator leaves a minority behind, with what its clients asked just then.
        assert outcomes.total() - outcomes["ok"] <= SEEDS * scenario.clients


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_a_write_waits_for_no_heartbeat(through: str) -> None:
    """TestSpeed4B: one write after the other, each within a third of a heartbeat, in virtual time."""
    lab = Lab(3)
    leader = lab.leader()
    lab.run(100)
    name = leader if through == "leader" else lab.others(leader)[0]
    began_ms = lab.now_ms
    for number in range(200):
        data = b"%d" % number
        assert lab.propose(name, data)
        assert lab.run(1000, lambda data=data: name in lab.where.get(data, {}))  # type: ignore[misc]
    assert (lab.now_ms - began_ms) / 200 < HEARTBEAT_MS / 3


class Parted(Cluster):
    """Five replicas in two parts that don't hear each other, until ``minority`` is emptied."""

    def __init__(self, seed: int = 0) -> None:
        self.minority: set[str] = set()
        super().__init__(5, seed=seed)

    def send(self, envelope: Envelope) -> None:
        if (envelope.sender in self.minority) is (envelope.receiver in self.minority):
            super().send(envelope)

    def part(self) -> tuple[Server, Server, list[Server]]:
        """Put the leader and a follower into the minority: both, and the others."""
        leader = self.elect()
        ally, *rest = self.followers
        self.minority = {leader.name, ally.name}
        return leader, ally, rest


@pytest.mark.parametrize("seed", range(5))
def test_a_minority_completes_nothing_until_it_is_heard_again(seed: int) -> None:
    """TestOnePartition4B: writes and reads on either side."""
    cluster = Parted(seed)
    leader, ally, rest = cluster.part()
    for server in (leader, ally):
        server.put(b"k", b"minority " + server.name.encode(), ticket="put", timeout_ms=60_000)
        server.barrier("get", timeout_ms=60_000)
    cluster.advance(1000)
    rest[0].put(b"k", b"majority", ticket="put")
    cluster.advance(100)
    assert rest[0].answer("put") == PutResult(1, 1)
    rest[1].barrier("get")
    cluster.advance(100)
    assert rest[1].answer("get") is None
    assert leader.answers == ally.answers == {}
    cluster.minority = set()
    cluster.advance(3000)
    for server in (leader, ally):
        result = server.answer("put")
        assert isinstance(result, PutResult)
        assert result.revision in (2, 3)
        assert server.answer("get") is None
    assert {server.machine.store.revision for server in cluster.living} == {3}


@pytest.mark.parametrize("seed", range(5))
def test_what_a_minority_leader_took_is_decided_once_it_is_heard_again(seed: int) -> None:
    """TestLeaderPartition4A: a hundred writes get no answer in the minority, and afterwards one each."""
    cluster = Parted(seed)
    leader, _, rest = cluster.part()
    for number in range(100):
        leader.put(b"%d" % number, timeout_ms=60_000)
        leader.turn()
    cluster.advance(3000)
    assert leader.answers == {}
    for server in rest:
        server.put(b"other " + server.name.encode())
    cluster.advance(100)
    cluster.minority = set()
    cluster.advance(5000)
    answers = [leader.answer(b"%d" % number) for number in range(100)]
    assert all(isinstance(each, PutResult) and each.created for each in answers)
    assert {server.machine.store.revision for server in cluster.living} == {103}


def test_a_snapshot_holds_no_history() -> None:
    """TestSnapshotSize4C: a key that was written two hundred times is in it once, and the log is empty."""
    cluster = Cluster()
    leader = cluster.elect()
    for number in range(200):
        leader.put(b"k", b"%d" % number, ticket=number)
        cluster.settle()
    leader.take_snapshot()
    assert leader.machine.store.revision == 200
    assert sum(map(len, leader.snapshot[1])) < 500
    assert leader.replica.node.log.last_index == leader.replica.node.log.boundary.index
