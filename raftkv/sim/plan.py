"""What a seed decides before anything happens: the cluster, its clocks and bounds, its faults, its clients.

Swarm testing: each run leaves most kinds of fault out and overdoes the rest, so that rare combinations come
up. Everything is drawn from the one generator that the run goes on with.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from raftkv.consensus.types import Limits, Membership, NodeId, Timing
from raftkv.waiting import ReplicaLimits

SIZES = (1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7)

FAULTS = (
    "power_cut",  # a node loses power: of what wasn't synced, anything may be left
    "power_cut_in_write",  # the same, between two calls that the WAL makes
    "kill",  # a process ends; the kernel keeps what it was given
    "storm",  # several at once, or all
    "beheading",  # for a while, whoever leads is struck again and again
    "ambush",  # for a while, who is elected or commits something is struck at once
    "stop",  # it is told to: hands over, answers, ends
    "rolling_restart",  # all are, one after the other
    "transfer",  # somebody asks a node to make another lead
    "pause",
    "slow_disk",
    "fsync_error",
    "write_error",
    "read_error",
    "disk_full",
    "flipped_bit",
    "snapshot",  # somebody asks for one now
    "snapshot_ambush",  # for a while, who takes, sends or gets one is struck in the middle of it
    "isolate",
    "isolate_long",  # until the others' logs have gone on without it
    "deafen",  # it sends, and hears nothing
    "mute",  # it hears, and nobody hears it
    "split",
    "bridge",  # two halves that share one node
    "cut_pair",
    "one_way",
    "lose_connection",  # with or without notice
    "clog",
    "swizzle",  # half the nodes clogged one by one, and freed in another order
)


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    least_delay_ms: float
    mean_delay_ms: float  # of an exponential distribution on top
    loss: float  # share of frames
    duplication: float
    keeps_order: bool  # as a TCP connection does
    replay_ms: float  # how late a copy may be, mean
    max_frames: int  # under way on one link; beyond it they are dropped


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    log_bytes: int  # applied since the last one, of which the next is taken; 0: only when asked for
    margin: int  # entries that stay in memory for slow followers
    chunk_ms: float  # mean, between two chunks that are written
    stream_ms: float  # mean, of a chunk's way to another node, beyond what a frame takes
    patience_ms: float  # without news of a stream until it is given up


@dataclass(frozen=True, slots=True)
class FeaturesPlan:
    """What a machine of level 2 is put to."""

    rise_ms: float  # when the level may rise
    share: float  # of the writes are no plain puts and deletes
    ttl_ms: tuple[int, ...]  # of leases
    keep: int  # changes of the history, about
    look_ms: float  # how often the leader looks what there is to be done
    watch_ms: float  # a watcher's mean pause


@dataclass(frozen=True, slots=True)
class Plan:
    size: int
    timing: Timing
    limits: Limits
    replica_limits: ReplicaLimits
    network: NetworkPlan
    snapshots: SnapshotPlan
    fsync_ms: float  # mean
    segment_bytes: int
    clock_drift: float  # clocks run at rates from 1 - this to 1 + this
    faults: tuple[tuple[str, float], ...]  # (kind, how many a virtual second)
    outage_ms: float  # mean length of an outage, a cut, a pause
    duration_ms: float  # of the phase with faults
    clients: int
    keys: int
    think_ms: float  # a client's mean pause between operations
    timeout_ms: float  # of requests
    reads: float  # share of operations
    lease_reads: float  # share of reads for which the leader's lease will do
    conditions: float  # share of writes
    value_bytes: int  # at most
    spares: int = 0  # servers that founded nothing; members change only where there are some
    features: FeaturesPlan | None = None  # None: the machine stays at level 1

    @property
    def names(self) -> tuple[NodeId, ...]:
        """All servers, sorted: those who found the cluster, then the spares."""
        return tuple(NodeId(f"n{number}") for number in range(1, self.size + self.spares + 1))

    @property
    def membership(self) -> Membership:
        return Membership.of(*(f"n{number}" for number in range(1, self.size + 1)))


def draw(random: Random) -> Plan:
    pick, uniform = random.choice, random.uniform
    timing = _timing(random)
    # A duel: small clusters whose leaders hardly last, with an entry a message. Figure 8 needs no less.
    is_duel = random.random() < 0.25
    small = random.random() < (0.8 if is_duel else 0.4)
    return Plan(
        size=pick((3, 3, 3, 5) if is_duel else SIZES),
        timing=timing,
        limits=_small_limits(random, is_duel) if small else Limits(),
        replica_limits=_small_replica_limits(random) if random.random() < 0.4 else ReplicaLimits(),
        network=NetworkPlan(
            least_delay_ms=uniform(0.05, 1.5),
            mean_delay_ms=uniform(0.05, timing.heartbeat_ms / 4),
            loss=pick((0.0, 0.0, 0.01, 0.1, 0.3)),
            duplication=pick((0.0, 0.0, 0.01, 0.2)),
            keeps_order=random.random() < 0.5,
            replay_ms=uniform(0.5, 3) * timing.election_timeout_max_ms,
            max_frames=pick((3, 20, 1000)),
        ),
        snapshots=_snapshots(random, timing),
        fsync_ms=pick((0.2, 1.0, 5.0, 20.0)),
        segment_bytes=pick((1024, 4096, 16384, 1 << 20)),
        clock_drift=pick((0.0, 0.01, 0.1)),
        faults=_duel(random, timing) if is_duel else _faults(random, timing),
        outage_ms=uniform(0.2, 2) * timing.election_timeout_max_ms,
        duration_ms=(uniform(15, 45) if is_duel else uniform(5, 18)) * timing.election_timeout_max_ms,
        clients=random.randint(1, 6),
        keys=pick((1, 3, 10)),
        think_ms=pick((3.0, 10.0, 30.0)),
        timeout_ms=uniform(0.3, 4) * timing.election_timeout_max_ms,
        reads=uniform(0.1, 0.7),
        lease_reads=pick((0.0, 0.3, 0.9)),
        conditions=pick((0.0, 0.3, 0.8)),
        value_bytes=pick((0, 20, 2000)),
    )


def _snapshots(random: Random, timing: Timing) -> SnapshotPlan:
    return SnapshotPlan(
        log_bytes=random.choice((0, 0, 200, 1000, 4000, 20000)),
        margin=random.choice((0, 0, 3, 30)),
        chunk_ms=random.choice((0.1, 1.0, 20.0)),
        stream_ms=random.choice((0.05, 1.0, 0.1 * timing.election_timeout_min_ms)),
        patience_ms=random.uniform(0.5, 2) * timing.election_timeout_max_ms,
    )


def _timing(random: Random) -> Timing:
    has_leases = random.random() < 0.5
    if random.random() < 0.4:
        return Timing(lease_ms=random.choice((100.0, 300.0)) if has_leases else 0.0)
    least = random.uniform(80, 400)
    return Timing(
        heartbeat_ms=least / random.uniform(3, 8),
        election_timeout_min_ms=least,
        election_timeout_max_ms=least * random.uniform(1.3, 2.5),
        hunt_step_ms=random.uniform(1, 8),
        commit_notice_ms=random.uniform(0.5, 5),
        lease_ms=least * random.uniform(0.5, 1) if has_leases else 0.0,
    )


def _small_limits(random: Random, is_duel: bool) -> Limits:
    """So that windows, batches and refusals happen in short runs."""
    return Limits(
        max_append_bytes=random.choice((1, 100, 3000)),
        max_append_entries=random.choice((1, 1, 3) if is_duel else (1, 3, 8192)),
        max_inflight_messages=random.choice((1, 3)),
        max_inflight_bytes=random.choice((100, 5000)),
        max_unsettled_bytes=random.choice((300, 5000)),
        max_waiting_reads=random.choice((1, 5)),
        max_apply_bytes=random.choice((1, 300)),
    )


def _small_replica_limits(random: Random) -> ReplicaLimits:
    return ReplicaLimits(
        max_batch_commands=random.choice((1, 3)),
        max_batch_bytes=random.choice((50, 1000)),
        max_inflight_batches=random.choice((1, 2, 8)),
        max_waiting_requests=random.choice((2, 100)),
        resend_ms=random.uniform(20, 300),
    )


def _duel(random: Random, timing: Timing) -> tuple[tuple[str, float], ...]:
    per_second = random.uniform(0.3, 1) / timing.election_timeout_max_ms * 1000
    other = random.choice([kind for kind in FAULTS if kind not in ("beheading", "ambush")])
    return ("beheading", per_second), ("ambush", per_second / 2), (other, per_second / 4)


def _faults(random: Random, timing: Timing) -> tuple[tuple[str, float], ...]:
    """Few kinds or many, but in all at most a few an election timeout: else nothing would ever work."""
    share = random.choice((0.05, 0.15, 0.3, 0.6))
    chosen = [kind for kind in FAULTS if random.random() < share]
    weights = [random.uniform(0.1, 1) for _ in chosen]
    in_all = random.uniform(0.2, 3) / timing.election_timeout_max_ms * 1000
    return tuple((kind, in_all * weight / sum(weights)) for kind, weight in zip(chosen, weights, strict=True))
