"""``GET /metrics``, for Prometheus: made when it is asked for, from the node's status and tallies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from raftkv import __version__
from raftkv.api.answer import Answer
from raftkv.api.params import parse_query
from raftkv.kv.machine import KvMachine
from raftkv.ports import Service
from raftkv.tallies import Tallies, Tally

PREFIX = "raftkv_"
ROLES = ("follower", "pre_candidate", "candidate", "leader")


class MetricsHandlers:
    def __init__(self, service: Service, machine: KvMachine) -> None:
        self._service = service
        self._machine = machine
        # Its own registry, and not the library's global one: a process may hold several nodes.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    async def metrics(self, request: web.BaseRequest) -> Answer:
        parse_query(request.rel_url.raw_query_string, ())
        return Answer({"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}, generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        """See ``prometheus_client.registry.Collector``."""
        yield InfoMetricFamily(
            PREFIX + "node", "This node.", {"node": self._service.node_id, "version": __version__}
        )
        yield from _of_tallies(self._service.tallies)
        yield from _of_status(self._service.status())
        yield from _of_store(self._machine, watchers=len(self._service.hub))

    def describe(self) -> Iterable[Metric]:
        """Nothing is looked at before the first scrape."""
        return ()


def _of_tallies(tallies: Tallies) -> Iterator[Metric]:
    requests = HistogramMetricFamily(
        PREFIX + "request_seconds",
        "Requests answered in one piece (no streams), until the answer was made; those that wait, with that.",
        labels=("method", "route"),
    )
    for (method, route), tally in sorted(tallies.requests.items()):
        requests.add_metric((method, route), _buckets(tally), tally.sum)
    yield requests
    errors = CounterMetricFamily(
        PREFIX + "request_errors", "Requests answered with a problem, by its code.", labels=("code",)
    )
    for code, count in sorted(tallies.errors.items()):
        errors.add_metric((code,), count)
    yield errors
    for name, what, tally in (
        ("batch_commands", "Commands of this node's clients in a batch.", tallies.batch),
        ("commit_seconds", "From a batch's making until it was applied on this node.", tallies.commit),
        ("apply_seconds", "Applying what was committed in one turn.", tallies.apply),
        ("turn_seconds", "Turns: so long the event loop does nothing else.", tallies.turn),
        ("fsync_seconds", "fdatasync of the log.", tallies.fsync),
        ("loop_late_seconds", "How much too late the event loop's timers came.", tallies.loop_late),
        ("gc_pause_seconds", "Passes of the garbage collector.", tallies.gc_pause),
    ):
        yield HistogramMetricFamily(PREFIX + name, what, buckets=_buckets(tally), sum_value=tally.sum)
    yield CounterMetricFamily(PREFIX + "elections", "Elections that this node began.", tallies.elections)
    yield CounterMetricFamily(
        PREFIX + "leader_changes", "Leaders that this node saw come.", tallies.leader_changes
    )


def _buckets(tally: Tally) -> list[tuple[str, float]]:
    return list(zip([*map(str, tally.bounds), "+Inf"], accumulate(tally.counts), strict=True))


def _of_status(status: Mapping[str, Any]) -> Iterator[Metric]:
    roles = GaugeMetricFamily(PREFIX + "role", "1 for the role that this node is in.", labels=("role",))
    for role in ROLES:
        roles.add_metric((role,), role == status["role"])
    yield roles
    yield _gauge("has_leader", "Whether this node knows of a leader.", status["leader"] is not None)
    yield _gauge("term", "Raft's term.", status["term"])
    yield _gauge("last_index", "Of the log's entries.", status["last_index"])
    yield _gauge("commit_index", "Up to which entries are known to be committed.", status["commit_index"])
    yield _gauge("applied_index", "Up to which entries are applied.", status["last_applied"])
    if status["staleness_ms"] is not None:
        yield _gauge("staleness_seconds", "How old a stale read may be.", status["staleness_ms"] / 1000)
    waiting = GaugeMetricFamily(PREFIX + "waiting", "What waits in this node, by kind.", labels=("kind",))
    for kind, count in status["waiting"].items():
        waiting.add_metric((kind,), count)
    waiting.add_metric(("disk",), status["disk"]["waiting"])
    yield waiting
    yield _gauge("log_entries", "In memory.", status["log"]["entries"])
    yield from _of_peers(status)


def _of_peers(status: Mapping[str, Any]) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        PREFIX + "peer_connected", "Whether there is a link to that node.", labels=("peer",)
    )
    for peer, link in status["links"].items():
        connected.add_metric((peer,), link["connected"])
    yield connected
    dropped = CounterMetricFamily(
        PREFIX + "peer_dropped_messages", "Messages to that node that found no room.", labels=("peer",)
    )
    for peer, count in status["dropped_messages"].items():
        dropped.add_metric((peer,), count)
    yield dropped
    lag = GaugeMetricFamily(
        PREFIX + "peer_lag_entries",
        "Entries of the leader's log that the node hasn't confirmed. Told by the leader alone.",
        labels=("peer",),
    )
    for peer, progress in status.get("peers", {}).items():
        lag.add_metric((peer,), status["last_index"] - progress["match_index"])
    yield lag


def _of_store(machine: KvMachine, watchers: int) -> Iterator[Metric]:
    store = machine.store
    yield _gauge("revision", "Of the store.", store.revision)
    yield _gauge("keys", "In the store.", len(store))
    yield _gauge("store_bytes", "Of keys and rows, as the quota counts them.", store.size_bytes)
    yield _gauge("leases", "That live.", len(machine.leases))
    yield _gauge("watchers", "Of this node.", watchers)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, what, value)
