"""What a node says of itself and of the others."""

from __future__ import annotations

import pytest

from raftkv.consensus.types import NodeId
from raftkv.errors import NoQuorum, ShuttingDown
from raftkv.ports import PeerView
from tests.api.client import Connection
from tests.api.node import RestNode

STATUS = {
    "node": "n2",
    "url": "http://n2:8001",
    "peer_address": "n2:9001",
    "cluster_id": "c",
    "leader": "n1",
    "leader_url": "http://n1:8001",
    "role": "follower",
    "term": 3,
    "commit_index": 10,
    "last_applied": 8,
    "last_index": 12,
    "revision": 5,
}


def peer(node: str, *, connected: bool, commit_index: int | None) -> PeerView:
    status = None if commit_index is None else {"commit_index": commit_index, "last_applied": 20}
    age_ms = None if commit_index is None else 12.6
    return PeerView(NodeId(node), f"{node}:9001", connected, None, status, age_ms)


def test_status_is_what_the_service_says(node: RestNode, client: Connection) -> None:
    node.service.status_report = STATUS
    reply = client.request("GET", "/v1/status")
    assert (reply.status, reply.json) == (200, STATUS)
    assert reply.headers["content-type"] == "application/json"


def test_cluster(node: RestNode, client: Connection) -> None:
    node.service.status_report = STATUS
    node.service.peer_views = [
        peer("n1", connected=True, commit_index=20),
        peer("n3", connected=False, commit_index=None),
    ]
    reply = client.request("GET", "/v1/cluster").json
    members = {member["node"]: member for member in reply["members"]}
    assert list(members) == ["n1", "n2", "n3"]
    assert {name: member["lag"] for name, member in members.items()} == {"n1": 0, "n2": 12, "n3": None}
    assert members["n1"]["reported_ms_ago"] == 13
    assert members["n3"]["role"] is None
    assert (reply["quorum"], reply["connected"], reply["may_lose"], reply["has_quorum"]) == (2, 2, 0, True)
    node.service.peer_views[0] = peer("n1", connected=False, commit_index=20)
    alone = client.request("GET", "/v1/cluster").json
    assert (alone["connected"], alone["may_lose"], alone["has_quorum"]) == (1, 0, False)


def test_liveness_asks_nobody(node: RestNode, client: Connection) -> None:
    node.service.barrier_error = NoQuorum("nobody there")
    reply = client.request("GET", "/livez")
    assert (reply.status, reply.json) == (200, {"status": "ok", "node": "n1"})


@pytest.mark.parametrize("query", ["", "?verbose", "?verbose=true"])
def test_readiness_asks_a_majority(node: RestNode, client: Connection, query: str) -> None:
    node.service.peer_views = [peer("n2", connected=True, commit_index=1)]
    ready = client.request("GET", f"/readyz{query}")
    assert (ready.status, ready.json["status"]) == (200, "ready")
    assert node.service.timeouts_ms == [1000]
    node.service.barrier_error = NoQuorum("nobody there")
    unready = client.request("GET", f"/readyz{query}")
    assert (unready.status, unready.json["status"]) == (503, "no quorum")
    if query:
        assert unready.json["checks"] == {"quorum": False, "leader": "n2", "links": {"n2": True}}


def test_a_node_that_was_told_to_stop_is_not_ready_though_it_serves(
    node: RestNode, client: Connection
) -> None:
    node.service.stopping = True
    reply = client.request("GET", "/readyz?verbose")
    assert (reply.status, reply.json["status"]) == (503, "stopping")
    assert reply.json["checks"]["quorum"] is True
    assert client.request("PUT", "/v1/kv/k", body=b"v").status == 201


def test_a_node_that_stops_is_not_ready(node: RestNode, client: Connection) -> None:
    node.service.barrier_error = ShuttingDown("going")
    reply = client.request("GET", "/readyz")
    assert (reply.status, reply.json["code"]) == (503, "shutting_down")
