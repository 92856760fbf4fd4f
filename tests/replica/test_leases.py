"""Leases over several leaders: none ends before its time, and each ends."""

from __future__ import annotations

import pytest

from raftkv.consensus.roles import Leader
from raftkv.kv.commands import encode_grant, encode_keep_alive, encode_level, encode_put, encode_tick
from raftkv.kv.levels import MACHINE_LEVEL
from raftkv.kv.results import Done, LeaseResult, PutResult
from tests.replica.harness import Cluster, Server

TTL_MS = 3_000
STEP_MS = 10.0
KEY = b"attached"


def ask(cluster: Cluster, server: Server, command: bytes, ticket: str) -> object:
    server.replica.propose(command, ticket, cluster.now_ms + 5000)
    cluster.advance(100, STEP_MS)
    return server.answer(ticket)


def keep_house(cluster: Cluster) -> None:
    """As ``server/housekeeping.py`` does: who leads says when a lease is due."""
    for server in cluster.living:
        now_ms = server.replica.node.cluster_time_ms
        if now_ms is not None and server.machine.due_ms <= now_ms:
            server.replica.propose(encode_tick(), f"tick {cluster.now_ms}", cluster.now_ms + 5000)


def has_it(server: Server) -> bool:
    return server.machine.store.get(KEY) is not None


@pytest.mark.parametrize("seed", range(4))
def test_no_leader_shortens_a_lease_and_none_keeps_it_for_ever(seed: int) -> None:
    cluster = Cluster(seed=seed)
    leader = cluster.elect()
    assert isinstance(ask(cluster, leader, encode_level(MACHINE_LEVEL), "level"), Done)
    granted_ms = cluster.now_ms
    assert ask(cluster, cluster.followers[0], encode_grant(TTL_MS, 7), "grant") == LeaseResult(
        7, TTL_MS, leader.machine.leases.rows()[7].expires_ms
    )
    assert isinstance(ask(cluster, leader, encode_put(KEY, b"v", lease=7), "put"), PutResult)
    begun_ms = granted_ms  # since then there was no other leader
    lost_at_ms = [granted_ms + TTL_MS * share for share in (0.2, 0.5, 0.8)]
    renews_at_ms = granted_ms + TTL_MS * 0.35 if seed % 2 else float("inf")
    dead: Server | None = None
    while any(map(has_it, cluster.living)):
        if lost_at_ms and cluster.now_ms >= lost_at_ms[0] and any(map(_leads, cluster.living)):
            del lost_at_ms[0]
            if dead is not None:
                dead.start()
            dead = cluster.leader
            # With an entry just before, the next leader's time goes on from there: none is passed twice.
            assert isinstance(
                ask(cluster, dead, encode_put(b"k", b""), f"last at {cluster.now_ms}"), PutResult
            )
            cluster.kill(dead)
            begun_ms = cluster.now_ms
        if cluster.now_ms >= renews_at_ms and any(map(_leads, cluster.living)):
            renewed_ms, renews_at_ms = cluster.now_ms, float("inf")
            if isinstance(ask(cluster, cluster.leader, encode_keep_alive(7), "renewed"), LeaseResult):
                granted_ms = renewed_ms
        keep_house(cluster)
        cluster.advance(STEP_MS, STEP_MS)
        # A new leader goes on from the time of the last entry: what has passed since then, passes again.
        assert cluster.now_ms < max(granted_ms, begun_ms) + TTL_MS + 2000, "it doesn't end"
    assert cluster.now_ms >= granted_ms + TTL_MS
    if dead is not None:
        dead.start()
    cluster.advance(500, STEP_MS)
    assert not any(map(has_it, cluster.living))
    assert len({server.machine.checksum for server in cluster.living}) == 1


def _leads(server: Server) -> bool:
    return isinstance(server.replica.node.role, Leader)
