"""What scripts/bench --against measures, and what it ought to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from floors import Floors
from stores import BATCH, STAGES

SMALL, MIDDLE, LARGE = 64, 1 << 10, 64 << 10  # bytes of a value
CONNECTIONS = (1, 16, 64, 256)


@dataclass(frozen=True, slots=True)
class Case:
    """``operation``: of store.lua, or of ``PACED``. ``grpc``: (connections, streams on each) of etcd's own
    protocol beside it, as many in flight; None: without. ``stage``: of ``stores``.
    """

    operation: str
    connections: int
    target: str = "leader"
    value_bytes: int = SMALL
    grpc: tuple[int, int] | None = None
    stage: str = "stores"

    @property
    def name(self) -> str:
        size = "" if self.value_bytes == SMALL else f", {self.value_bytes >> 10} KiB"
        return f"{NAMES[self.operation]}{size}, {self.connections}, {self.target}{_SETTINGS[self.stage]}"

    @property
    def contenders(self) -> tuple[str, ...]:
        """Who does this: the stage's stores, "bare" for the bare handler, "grpc"."""
        _, other = STAGES[self.stage]
        return (
            "raftkv",
            *(() if self.operation in ("lease", "snapshot") else (other,)),
            *(() if self.grpc is None else ("grpc",)),
            *(("bare",) if self.operation == "stale" and self.connections == 64 else ()),
        )


NAMES = {
    "put": "PUT",
    "get": "GET linearizable",
    "lease": "GET lease",
    "stale": "GET stale",
    "mixed": "90 % GET, 10 % PUT",
    "batch": f"batch of {BATCH} puts",
    "half": "PUT at half load",
    "snapshot": "PUT at half load during a snapshot",
}
PACED = frozenset({"half", "snapshot"})  # at half the rate at which so many connections have just put
_SETTINGS = {"stores": "", "nodes": "; five nodes", "keys": "; ten times the keys"}
_IN_FLIGHT = {1: (1, 1), 64: (8, 8), 128: (16, 8)}


def all_cases() -> list[Case]:
    cases = [
        Case(operation, connections, target, grpc=_IN_FLIGHT.get(connections) if target == "leader" else None)
        for operation in ("put", "get")
        for connections in (*CONNECTIONS[:3], *((128,) if operation == "put" else ()), CONNECTIONS[3])
        for target in ("leader", "follower", "all")
        if (connections > 1 or target != "all") and (connections != 128 or target == "leader")
    ]
    cases += [Case("lease", connections) for connections in CONNECTIONS]
    cases += [Case("stale", connections) for connections in CONNECTIONS]
    cases += [Case("stale", 64, "follower"), Case("stale", 256, "all")]
    cases += [Case("mixed", 64), Case("mixed", 256, "all")]
    cases += [
        Case(operation, 64, value_bytes=size) for operation in ("put", "get") for size in (MIDDLE, LARGE)
    ]
    cases += [Case("batch", 16), Case("half", 64), Case("put", 64, stage="nodes")]
    return [*cases, *(Case(operation, 64, stage="keys") for operation in ("put", "get", "snapshot"))]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a load; ``failed``: requests that were answered with an error, or not at all."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured."""

    runs: Mapping[tuple[Case, str], Sequence[Run]]
    floors: Floors

    def middle(self, case: Case, contender: str) -> Run | None:
        """Medians; None where it wasn't measured."""
        runs = self.runs.get((case, contender))
        if not runs:
            return None
        return Run(
            median(run.per_second for run in runs),
            median(run.p50_ms for run in runs),
            median(run.p99_ms for run in runs),
            sum(run.failed for run in runs),
        )

    def ratio(self, case: Case, contender: str) -> float | None:
        """raftkv's requests a second by the contender's: the median of the ratios of the turns."""
        ours, theirs = self.runs.get((case, "raftkv")), self.runs.get((case, contender))
        if not ours or not theirs:
            return None
        return median(a.per_second / b.per_second for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Goal:
    """``measure`` gives the figure to be compared with ``least``; None where the case wasn't measured."""

    name: str
    least: float
    case: Case
    measure: Callable[[Figures, Case], float | None]


def _by(contender: str) -> Callable[[Figures, Case], float | None]:
    return lambda figures, case: figures.ratio(case, contender)


def _p50(figures: Figures, case: Case) -> float | None:
    ours, theirs = figures.middle(case, "raftkv"), figures.middle(case, "etcd")
    return None if ours is None or theirs is None else theirs.p50_ms / ours.p50_ms


def _floors_by_p50(figures: Figures, case: Case) -> float | None:
    ours = figures.middle(case, "raftkv")
    floors = figures.floors
    floor_ms = floors.fdatasync_ms + floors.websocket_ms + floors.http_ms
    return None if ours is None else 2 * floor_ms / ours.p50_ms


def _p50_by_p99(figures: Figures, case: Case) -> float | None:
    ours = figures.middle(case, "raftkv")
    return None if ours is None else 5 * ours.p50_ms / ours.p99_ms


def _per_second(factor: float) -> Callable[[Figures, Case], float | None]:
    def measure(figures: Figures, case: Case) -> float | None:
        middle = figures.middle(case, "raftkv")
        return None if middle is None else middle.per_second * factor

    return measure


_ALONE, _64 = Case("put", 1, grpc=_IN_FLIGHT[1]), _IN_FLIGHT[64]
_MANY_KEYS = [Case(operation, 64, stage="keys") for operation in ("put", "get", "snapshot")]

GOALS = (
    Goal("PUT, 64 connections to the leader, by etcd's gateway", 2.0, Case("put", 64, grpc=_64), _by("etcd")),
    Goal("PUT, 256 connections over all nodes, by etcd's gateway", 2.0, Case("put", 256, "all"), _by("etcd")),
    Goal("PUT, 128 in flight, by etcd's gRPC", 0.8, Case("put", 128, grpc=_IN_FLIGHT[128]), _by("grpc")),
    Goal("PUT, one connection: etcd's p50 by ours", 0.7, _ALONE, _p50),
    Goal("PUT, one connection: twice the floors by our p50", 1.0, _ALONE, _floors_by_p50),
    Goal("linearizable GET, 64 connections, by etcd's gateway", 1.7, Case("get", 64, grpc=_64), _by("etcd")),
    Goal("stale GET, 64 connections, by a bare aiohttp handler", 0.8, Case("stale", 64), _by("bare")),
    Goal("batches of 100 puts: keys a second", 150_000, Case("batch", 16), _per_second(BATCH)),
    Goal("64 KiB values: MB a second", 150, Case("put", 64, value_bytes=LARGE), _per_second(LARGE / 1e6)),
    Goal("PUT at half load: five times the p50 by the p99", 1.0, Case("half", 64), _p50_by_p99),
    Goal("the same during a snapshot, a hundred times the keys", 1.0, _MANY_KEYS[2], _p50_by_p99),
    Goal("PUT, 64 connections: ten times the keys, by a tenth of them", 0.9, _MANY_KEYS[0], _by("tenth")),
    Goal(
        "linearizable GET, 64 connections: ten times the keys, by a tenth of them",
        0.9,
        _MANY_KEYS[1],
        _by("tenth"),
    ),
    Goal("PUT, 64 connections: five nodes by three", 0.6, Case("put", 64, stage="nodes"), _by("three")),
)
