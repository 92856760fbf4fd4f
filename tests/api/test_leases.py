"""``/v1/leases``: grant, look, keep alive, revoke."""

from __future__ import annotations

import msgpack
import pytest

from raftkv.errors import NoQuorum
from raftkv.kv.commands import encode_put, encode_tick
from raftkv.kv.lease import MAX_CHOSEN_ID
from tests.api.client import Connection
from tests.api.node import RestNode


def grant(client: Connection, body: bytes = b'{"ttl": "30s"}') -> int:
    reply = client.request("POST", "/v1/leases", body=body)
    assert reply.status == 201, reply
    lease: int = reply.json["lease"]
    return lease


def propose(node: RestNode, command: bytes) -> None:
    node.run(node.service.propose(command, 1000))


def test_a_life(node: RestNode, client: Connection) -> None:
    node.service.time_ms, node.service.leads = 5_000, True
    reply = client.request("POST", "/v1/leases", body=b'{"ttl": "30s"}')
    assert (reply.status, reply.json) == (201, {"lease": 1, "ttl_ms": 30_000, "revision": 0})
    propose(node, encode_put(b"b\xff", b"", lease=1))
    propose(node, encode_put(b"a", b"", lease=1))
    node.service.time_ms = 15_000
    shown = {"lease": 1, "ttl_ms": 30_000, "remaining_ms": 20_000, "exact": True}
    reply = client.request("GET", "/v1/leases/1")
    assert (reply.status, reply.json) == (200, {**shown, "keys": [{"key": "a"}, {"key_base64": "Yv8="}]})
    assert reply.headers["raftkv-revision"] == "2"
    assert client.request("GET", "/v1/leases").json == {"leases": [shown], "after": None}
    reply = client.request("POST", "/v1/leases/1/keepalive")
    assert (reply.status, reply.json) == (200, {"lease": 1, "ttl_ms": 30_000})
    assert client.request("GET", "/v1/leases/1").json["remaining_ms"] == 30_000
    reply = client.request("DELETE", "/v1/leases/1")
    assert (reply.status, reply.json) == (200, {"deleted": 2, "revision": 3})
    assert len(node.store) == 0
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/keepalive")):
        reply = client.request(method, f"/v1/leases/1{path}")
        assert (reply.status, reply.json["code"]) == (404, "no_such_lease")
    assert client.request("GET", "/v1/leases").json == {"leases": [], "after": None}


def test_it_ends_in_cluster_time(node: RestNode, client: Connection) -> None:
    lease = grant(client)
    propose(node, encode_put(b"a", b"", lease=lease))
    node.service.time_ms = 29_999
    propose(node, encode_tick())
    assert client.request("GET", f"/v1/leases/{lease}").json["remaining_ms"] == 1
    node.service.time_ms = 30_000
    assert client.request("GET", f"/v1/leases/{lease}").json["remaining_ms"] == 0, "never below"
    propose(node, encode_tick())
    assert client.request("GET", f"/v1/leases/{lease}").status == 404
    assert client.request("GET", "/v1/kv/a").status == 404


def test_who_does_not_lead_says_that_it_may_be_less(node: RestNode, client: Connection) -> None:
    assert client.request("GET", f"/v1/leases/{grant(client)}").json["exact"] is False


def test_an_id_of_ones_own(client: Connection) -> None:
    assert grant(client, b'{"ttl": "1h", "id": 77}') == 77
    reply = client.request("POST", "/v1/leases", body=b'{"ttl": "1h", "id": 77}')
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (409, "lease_exists", "not_applied")
    assert grant(client) == 78


def test_no_id_leaves_later_leases_without_one_that_can_be_said(client: Connection) -> None:
    """The ids that the store gives go on from the largest there was."""
    largest = MAX_CHOSEN_ID
    assert grant(client, b'{"ttl": "30s", "id": %d}' % largest) == largest
    assert client.request("POST", f"/v1/leases/{grant(client)}/keepalive").status == 200
    for beyond in (largest + 1, 2**53 - 1, 2**53):
        reply = client.request("POST", "/v1/leases", body=b'{"ttl": "30s", "id": %d}' % beyond)
        assert (reply.status, reply.json["code"]) == (400, "bad_request")


def test_pages(client: Connection) -> None:
    leases = [grant(client, b'{"ttl": "1h", "id": %d}' % number) for number in (9, 2, 5, 100)]
    found, after = [], 0
    while after is not None:
        page = client.request("GET", f"/v1/leases?limit=3&after={after}").json
        found += [each["lease"] for each in page["leases"]]
        after = page["after"]
    assert found == sorted(leases)


def test_a_repeated_grant_is_one(client: Connection) -> None:
    headers = [("Idempotency-Key", "k1")]
    replies = [client.request("POST", "/v1/leases", headers, b'{"ttl": "30s"}') for _ in range(2)]
    assert [reply.json["lease"] for reply in replies] == [1, 1]
    assert len(client.request("GET", "/v1/leases").json["leases"]) == 1
    reply = client.request("POST", "/v1/leases", headers, b'{"ttl": "31s"}')
    assert (reply.status, reply.json["code"]) == (422, "token_reused")


def test_a_keepalive_is_never_answered_from_memory(node: RestNode, client: Connection) -> None:
    lease = grant(client)
    for _ in range(2):
        node.service.time_ms += 20_000
        reply = client.request("POST", f"/v1/leases/{lease}/keepalive", [("Idempotency-Key", "k")])
        assert reply.status == 200
    assert client.request("GET", f"/v1/leases/{lease}").json["remaining_ms"] == 30_000


def test_msgpack(client: Connection) -> None:
    headers = [("Content-Type", "application/msgpack")]
    reply = client.request("POST", "/v1/leases", headers, msgpack.packb({"ttl": "30s"}))
    assert reply.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(reply.body)["lease"] == 1


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/v1/leases", b""),
        ("POST", "/v1/leases", b"{}"),
        ("POST", "/v1/leases", b"[]"),
        ("POST", "/v1/leases", b'{"ttl": 30}'),
        ("POST", "/v1/leases", b'{"ttl": "30"}'),
        ("POST", "/v1/leases", b'{"ttl": "99ms"}'),
        ("POST", "/v1/leases", b'{"ttl": "999999999h"}'),
        ("POST", "/v1/leases", b'{"ttl": "30s", "id": 0}'),
        ("POST", "/v1/leases", b'{"ttl": "30s", "id": true}'),
        ("POST", "/v1/leases", b'{"ttl": "30s", "id": 9007199254740992}'),
        ("POST", "/v1/leases", b'{"ttl": "30s", "more": 1}'),
        ("POST", "/v1/leases?ttl=30s", b'{"ttl": "30s"}'),
        ("POST", "/v1/leases/1/keepalive", b'{"ttl": "30s"}'),
        ("GET", "/v1/leases/x", None),
        ("GET", "/v1/leases/0", None),
        ("GET", "/v1/leases/-1", None),
        ("GET", "/v1/leases/", None),
        ("GET", "/v1/leases/%31", None),
        ("GET", "/v1/leases?limit=0", None),
        ("GET", "/v1/leases?after=x", None),
        ("DELETE", "/v1/leases/1?x=1", None),
    ],
)
def test_what_is_refused(
    node: RestNode, client: Connection, method: str, target: str, body: bytes | None
) -> None:
    reply = client.request(method, target, body=body)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (400, "bad_request", "not_applied")
    assert node.service.commands == []


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("PUT", "/v1/leases", "GET, HEAD, POST"),
        ("PUT", "/v1/leases/1", "DELETE, GET, HEAD"),
        ("GET", "/v1/leases/1/keepalive", "POST"),
    ],
)
def test_a_wrong_method(client: Connection, method: str, target: str, allow: str) -> None:
    reply = client.request(method, target)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


def test_nothing_else_is_there(client: Connection) -> None:
    assert client.request("POST", "/v1/leases/1/keepalive/x").status == 404
    assert client.request("POST", "/v1/leases/1/x").status == 404


def test_a_look_is_as_fresh_as_any_read(node: RestNode, client: Connection) -> None:
    lease = grant(client)
    node.service.barrier_error = NoQuorum("no leader")
    for path in (f"/v1/leases/{lease}", "/v1/leases"):
        assert client.request("GET", path).status == 503
        assert client.request("GET", f"{path}?consistency=stale").status == 200
