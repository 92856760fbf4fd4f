"""``/v1/services``: instances that are listed while their leases live."""

from __future__ import annotations

import msgpack
import pytest

from raftkv.kv.commands import encode_tick
from tests.api.client import Connection
from tests.api.node import RestNode

BODY = b'{"id": "i1", "address": "10.0.0.1:80", "ttl": "10s", "meta": {"zone": "a"}}'


def test_a_life(node: RestNode, client: Connection) -> None:
    reply = client.request("POST", "/v1/services/web", body=BODY)
    assert (reply.status, reply.json) == (201, {"name": "web", "id": "i1", "lease": 1, "revision": 1})
    body = b'{"id": "a/\xc3\xa9", "address": "10.0.0.2:80", "ttl": "30s"}'
    assert client.request("POST", "/v1/services/web", body=body).status == 201
    first = {
        "id": "i1",
        "address": "10.0.0.1:80",
        "meta": {"zone": "a"},
        "lease": 1,
        "create_revision": 1,
    }
    second = {"id": "a/é", "address": "10.0.0.2:80", "meta": None, "lease": 2, "create_revision": 2}
    listed = client.request("GET", "/v1/services/web").json
    assert listed == {"name": "web", "instances": [first, second], "revision": 2}
    assert client.request("POST", "/v1/leases/2/keepalive").status == 200
    node.service.time_ms = 10_000
    node.run(node.service.propose(encode_tick(), 1000))
    assert client.request("GET", "/v1/services/web").json["instances"] == [second]
    reply = client.request("DELETE", "/v1/services/web/a%2F%C3%A9")
    assert (reply.status, reply.json) == (200, {"deleted": 1, "revision": 4})
    assert client.request("DELETE", "/v1/services/web/a%2F%C3%A9").json["deleted"] == 0
    assert client.request("GET", "/v1/services/web").json["instances"] == []
    assert client.request("GET", "/v1/leases").json["leases"] == []


def test_registered_again_it_is_the_same_instance(node: RestNode, client: Connection) -> None:
    for _ in range(2):
        assert client.request("POST", "/v1/services/web", body=BODY).status == 201
    (instance,) = client.request("GET", "/v1/services/web").json["instances"]
    assert (instance["create_revision"], instance["lease"]) == (1, 2)
    assert len(node.service.machine.leases) == 1


def test_instances_that_share_a_lease(client: Connection) -> None:
    assert client.request("POST", "/v1/leases", body=b'{"ttl": "10s"}').json["lease"] == 1
    for name in ("web", "api"):
        body = b'{"id": "i", "address": "x:1", "lease": 1}'
        assert client.request("POST", f"/v1/services/{name}", body=body).json["lease"] == 1
    assert client.request("GET", "/v1/services").json["services"] == [{"name": "api"}, {"name": "web"}]
    assert client.request("DELETE", "/v1/leases/1").json["deleted"] == 2
    assert client.request("GET", "/v1/services").json["services"] == []
    reply = client.request("POST", "/v1/services/web", body=b'{"id": "i", "address": "x:1", "lease": 1}')
    assert (reply.status, reply.json["code"]) == (404, "no_such_lease")


def test_repeated_with_its_key_it_happens_once(node: RestNode, client: Connection) -> None:
    headers = [("Idempotency-Key", "k")]
    replies = [client.request("POST", "/v1/services/web", headers, BODY) for _ in range(2)]
    assert replies[0].json == replies[1].json
    assert node.store.revision == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/web", b"{}"),
        ("POST", "/web", b'{"id": "", "address": "x:1", "ttl": "10s"}'),
        ("POST", "/web", b'{"id": "\\u0000", "address": "x:1", "ttl": "10s"}'),
        ("POST", "/web", b'{"id": 1, "address": "x:1", "ttl": "10s"}'),
        ("POST", "/web", b'{"id": "i", "address": "", "ttl": "10s"}'),
        ("POST", "/web", b'{"id": "i", "ttl": "10s"}'),
        ("POST", "/web", b'{"id": "i", "address": "x:1"}'),
        ("POST", "/web", b'{"id": "i", "address": "x:1", "ttl": "10s", "tags": []}'),
        ("POST", "/web?ttl=10s", BODY),
        ("GET", "/web?passing=true", None),
        ("GET", "/", None),
        ("GET", "?x=1", None),
        ("DELETE", "/web/", None),
        ("DELETE", "/web/a/b", None),
    ],
)
def test_what_is_refused(
    node: RestNode, client: Connection, method: str, path: str, body: bytes | None
) -> None:
    reply = client.request(method, f"/v1/services{path}", body=body)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (400, "bad_request", "not_applied")
    assert node.service.commands == []


def test_meta_that_json_can_not_say_is_refused(client: Connection) -> None:
    body = msgpack.packb({"id": "i", "address": "x:1", "ttl": "10s", "meta": b"\xff"})
    reply = client.request("POST", "/v1/services/web", [("Content-Type", "application/msgpack")], body)
    assert reply.status == 400


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("PUT", "/web", "GET, HEAD, POST"), ("GET", "/web/i1", "DELETE"), ("POST", "", "GET, HEAD")],
)
def test_a_wrong_method(client: Connection, method: str, path: str, allow: str) -> None:
    reply = client.request(method, f"/v1/services{path}")
    assert (reply.status, reply.headers["allow"]) == (405, allow)
