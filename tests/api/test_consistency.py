"""``consistency``, ``max_staleness`` and ``min_revision``, as a client asks for them."""

from __future__ import annotations

import pytest

from raftkv.errors import NoQuorum, ShuttingDown
from tests.api.client import Connection
from tests.api.node import RestNode

READS = pytest.mark.parametrize("target", ["/v1/kv/a?", "/v1/kv?"])


@READS
def test_a_read_by_the_lease(node: RestNode, client: Connection, target: str) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    reply = client.request("GET", f"{target}consistency=lease")
    assert (reply.status, reply.headers["raftkv-consistency"]) == (200, "lease")
    assert node.service.by_lease == [True]
    assert "raftkv-staleness-ms" not in reply.headers
    client.request("GET", target)
    assert node.service.by_lease == [True, False]
    node.service.barrier_error = NoQuorum("nobody leads", retry_after_ms=1000)
    refused = client.request("GET", f"{target}consistency=lease")
    assert (refused.status, refused.json["code"]) == (503, "no_quorum")


@READS
def test_a_state_that_is_vouched_for_lately_asks_nobody(
    node: RestNode, client: Connection, target: str
) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    node.service.timeouts_ms.clear()
    node.service.vouched_age = 499.6
    reply = client.request("GET", f"{target}consistency=stale&max_staleness=500ms")
    assert (reply.status, reply.headers["raftkv-consistency"]) == (200, "stale")
    assert reply.headers["raftkv-staleness-ms"] == "500"
    assert node.service.timeouts_ms == []


@READS
@pytest.mark.parametrize("age", [500.1, None])
def test_an_older_one_asks_the_leader(
    node: RestNode, client: Connection, target: str, age: float | None
) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    node.service.timeouts_ms.clear()
    node.service.vouched_age = age
    reply = client.request("GET", f"{target}consistency=stale&max_staleness=500ms")
    assert (reply.status, reply.headers["raftkv-staleness-ms"]) == (200, "0")
    assert node.service.timeouts_ms == [1000], "no longer than its limit"
    assert node.service.by_lease == [False], "it rests on no clock but this node's"


@READS
@pytest.mark.parametrize("age", [500.1, None])
def test_and_is_refused_when_no_leader_answers(
    node: RestNode, client: Connection, target: str, age: float | None
) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    node.service.vouched_age = age
    node.service.barrier_error = NoQuorum("nobody leads")
    reply = client.request("GET", f"{target}consistency=stale&max_staleness=500ms")
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (503, "too_stale", "not_applied")
    assert reply.json.get("staleness_ms") == (None if age is None else 500)
    assert "retry-after" in reply.headers
    assert client.request("GET", f"{target}consistency=stale").status == 200, "without a bound it answers"
    node.service.barrier_error = ShuttingDown("going")
    reply = client.request("GET", f"{target}consistency=stale&max_staleness=500ms")
    assert reply.json["code"] == "shutting_down", "what isn't about age isn't said to be"


@READS
@pytest.mark.parametrize("level", ["linearizable", "lease", "stale"])
def test_min_revision_goes_with_every_level(
    node: RestNode, client: Connection, target: str, level: str
) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    reply = client.request("GET", f"{target}consistency={level}&min_revision=1&timeout=1s")
    assert (reply.status, reply.headers["raftkv-consistency"]) == (200, level)
    ((revision, timeout_ms),) = node.service.revisions_awaited
    assert revision == 1
    assert 0 < timeout_ms <= 950
    reply = client.request("GET", f"{target}consistency={level}&min_revision=2")
    assert (reply.status, reply.json["code"]) == (503, "revision_not_reached")
    assert reply.json["outcome"] == "not_applied"


@READS
def test_min_revision_0_waits_for_nothing(node: RestNode, client: Connection, target: str) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    assert client.request("GET", f"{target}consistency=stale&min_revision=0").status == 200
    assert node.service.revisions_awaited == []


@pytest.mark.parametrize(
    "target",
    ["/v1/kv/none", "/v1/leases", "/v1/locks/l", "/v1/elections/e", "/v1/services", "/v1/services/s"],
)
def test_whatever_is_read_says_how_stale_it_may_be(client: Connection, target: str) -> None:
    reply = client.request("GET", f"{target}?consistency=stale")
    assert (reply.headers["raftkv-consistency"], reply.headers["raftkv-staleness-ms"]) == ("stale", "12")
    assert reply.headers["raftkv-node"] == "n1"
