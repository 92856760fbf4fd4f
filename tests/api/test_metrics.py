"""``GET /metrics``, as Prometheus reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.client import Connection
from tests.api.node import RestNode

STATUS: dict[str, Any] = {
    "role": "leader",
    "leader": "n1",
    "term": 3,
    "commit_index": 10,
    "last_applied": 8,
    "last_index": 12,
    "staleness_ms": 12,
    "waiting": {"commands": 4},
    "disk": {"waiting": 2},
    "log": {"entries": 7},
    "links": {"n2": {"connected": True}, "n3": {"connected": False}},
    "dropped_messages": {"n2": 0, "n3": 9},
    "peers": {"n2": {"match_index": 12}, "n3": {"match_index": 5}},
}


def scraped(node: RestNode, client: Connection, **status: Any) -> dict[tuple[str, ...], float]:
    """Values by the name of the sample and the values of its labels, these in the order of their names."""
    node.service.status_report = STATUS | status
    reply = client.request("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_method_and_route(node: RestNode, client: Connection) -> None:
    for key in ("a", "b"):
        client.request("PUT", f"/v1/kv/{key}", body=b"x")
    client.request("GET", "/v1/kv/missing")
    client.request("GET", "/v1/leases/7")
    client.request("GET", "/v1/leases")
    client.request("GET", "/nowhere")
    client.request("OPTIONS", "/v1/kv/a")
    found = scraped(node, client)
    counts = {key[1:]: value for key, value in found.items() if key[0] == "raftkv_request_seconds_count"}
    assert counts == {
        ("PUT", "/v1/kv/{key}"): 2,
        ("GET", "/v1/kv/{key}"): 1,
        ("GET", "/v1/leases/..."): 1,
        ("GET", "/v1/leases"): 1,
        ("GET", "other"): 1,
        ("other", "/v1/kv/{key}"): 1,
    }
    assert found["raftkv_request_seconds_bucket", "+Inf", "PUT", "/v1/kv/{key}"] == 2
    assert 0 < found["raftkv_request_seconds_sum", "PUT", "/v1/kv/{key}"] < 10
    errors = {key[1]: value for key, value in found.items() if key[0] == "raftkv_request_errors_total"}
    assert errors == {"key_not_found": 1, "no_such_lease": 1, "not_found": 1, "method_not_allowed": 1}
    assert scraped(node, client)["raftkv_request_seconds_count", "GET", "/metrics"] == 1


def test_the_state_of_a_leader(node: RestNode, client: Connection) -> None:
    client.request("PUT", "/v1/kv/a", body=b"xyz")
    found = scraped(node, client)
    roles = {key[1]: value for key, value in found.items() if key[0] == "raftkv_role"}
    assert roles == {"follower": 0, "pre_candidate": 0, "candidate": 0, "leader": 1}
    assert found["raftkv_has_leader",] == 1
    indexes = ("term", "last_index", "commit_index", "applied_index", "log_entries")
    assert [found[f"raftkv_{name}",] for name in indexes] == [3, 12, 10, 8, 7]
    assert found["raftkv_staleness_seconds",] == 0.012
    assert (found["raftkv_waiting", "commands"], found["raftkv_waiting", "disk"]) == (4, 2)
    assert (found["raftkv_peer_connected", "n2"], found["raftkv_peer_connected", "n3"]) == (1, 0)
    assert found["raftkv_peer_dropped_messages_total", "n3"] == 9
    assert (found["raftkv_peer_lag_entries", "n2"], found["raftkv_peer_lag_entries", "n3"]) == (0, 7)
    assert (found["raftkv_revision",], found["raftkv_keys",]) == (1, 1)
    assert found["raftkv_store_bytes",] == node.service.machine.store.size_bytes
    assert found["process_resident_memory_bytes",] > 1 << 20


def test_a_follower_without_a_leader(node: RestNode, client: Connection) -> None:
    peerless = {"role": "follower", "leader": None, "staleness_ms": None, "peers": {}}
    found = scraped(node, client, **peerless)
    assert found["raftkv_has_leader",] == 0
    assert ("raftkv_staleness_seconds",) not in found
    assert not [key for key in found if key[0] == "raftkv_peer_lag_entries"]


def test_what_the_node_has_counted(node: RestNode, client: Connection) -> None:
    tallies = node.service.tallies
    for commands in (1, 1, 70, 5000):
        tallies.batch.observe(commands)
    tallies.fsync.observe(0.0003)
    tallies.elections, tallies.leader_changes = 2, 3
    found = scraped(node, client)
    buckets = {key[1]: value for key, value in found.items() if key[0] == "raftkv_batch_commands_bucket"}
    assert (buckets["1"], buckets["50"], buckets["100"], buckets["1000"], buckets["+Inf"]) == (2, 2, 3, 3, 4)
    assert (found["raftkv_batch_commands_count",], found["raftkv_batch_commands_sum",]) == (4, 5072)
    assert found["raftkv_fsync_seconds_bucket", "0.00025"] == 0
    assert found["raftkv_fsync_seconds_bucket", "0.0005"] == 1
    assert (found["raftkv_elections_total",], found["raftkv_leader_changes_total",]) == (2, 3)


def test_an_unknown_parameter_is_refused(client: Connection) -> None:
    assert client.request("GET", "/metrics?format=json").status == 400


@pytest.mark.parametrize("document", ["docs/metrics.md", "deploy/grafana.json"])
def test_what_is_written_of_metrics_is_there(node: RestNode, client: Connection, document: str) -> None:
    client.request("GET", "/nowhere")  # an error to be counted
    names = {key[0] for key in scraped(node, client)}
    text = (Path(__file__).parents[2] / document).read_text()
    named = set(re.findall(r"\b(?:raftkv|process)_[a-z_]+[a-z]\b", text))
    assert named >= {
        "raftkv_request_seconds_bucket" if document.endswith("json") else "raftkv_request_seconds"
    }
    assert not {name for name in named if not {name, f"{name}_count"} & names}


def test_every_metric_is_explained(node: RestNode, client: Connection) -> None:
    client.request("GET", "/nowhere")
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    names = {re.sub("_(bucket|count|sum|created)$", "", key[0]) for key in scraped(node, client)}
    ours = {name for name in names if name.startswith("raftkv_")} - {"raftkv_node_info"}
    assert not {name for name in ours if f"`{name}" not in text}
