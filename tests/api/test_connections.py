"""What happens on one connection: keep-alive, pipelining, leave to send a body, and errors in between."""

from __future__ import annotations

import pytest

from tests.api.client import Connection, chunked, request_bytes
from tests.api.node import LIMITS, RestNode

TOO_LARGE = b"v" * (LIMITS.max_value_bytes + 1)
REFUSED = {
    "not found": (request_bytes("GET", "/v1/kv/missing"), 404),
    "unknown path": (request_bytes("GET", "/nowhere"), 404),
    "unknown path with a body": (request_bytes("POST", "/nowhere", body=b"v" * 1000), 404),
    "wrong method with a body": (request_bytes("POST", "/v1/kv/a", body=b"v" * 1000), 405),
    "wrong query with a body": (request_bytes("PUT", "/v1/kv/a?tll=1s", body=b"v" * 1000), 400),
    "empty key with a body": (request_bytes("PUT", "/v1/kv/", body=b"v"), 400),
    "bad condition with a body": (request_bytes("PUT", "/v1/kv/a", [("If-Match", "x")], b"v"), 400),
    "condition failed": (request_bytes("PUT", "/v1/kv/a", [("If-Match", "*")], b"v"), 412),
    "too large": (request_bytes("PUT", "/v1/kv/a", body=TOO_LARGE), 413),
    "too large in chunks": (
        request_bytes("PUT", "/v1/kv/a", [("Transfer-Encoding", "chunked")], chunked(*[TOO_LARGE] * 10)),
        413,
    ),
    "a body where none is expected": (request_bytes("GET", "/v1/kv/missing", body=b"GET / HTTP/1.1"), 404),
}


@pytest.mark.parametrize("name", REFUSED)
def test_after_an_error_the_connection_is_in_step(client: Connection, name: str) -> None:
    request, status = REFUSED[name]
    for _ in range(3):
        client.send(request)
        assert client.reply().status == status
    assert client.request("PUT", "/v1/kv/b", body=b"v").status == 201
    assert client.request("GET", "/v1/kv/b").body == b"v"


def test_pipelined_requests_are_answered_in_order(client: Connection) -> None:
    requests = [request_bytes("PUT", f"/v1/kv/{i}", body=b"%d" % i) for i in range(50)]
    requests += [request_bytes("GET", f"/v1/kv/{i}") for i in range(50)]
    client.send(b"".join(requests))
    assert [client.reply().json["revision"] for _ in range(50)] == list(range(1, 51))
    assert [client.reply().body for _ in range(50)] == [b"%d" % i for i in range(50)]


def test_errors_among_pipelined_requests_hold_up_nobody(client: Connection) -> None:
    for request, _ in REFUSED.values():
        client.send(request + request_bytes("GET", "/livez"))
    for _, status in REFUSED.values():
        assert client.reply().status == status
        assert client.reply().status == 200


def test_what_stands_beside_a_broken_request_is_done_only_if_it_is_answered(
    node: RestNode, client: Connection
) -> None:
    put = request_bytes("PUT", "/v1/kv/a", body=b"v")
    client.send(put + b"nonsense\r\n\r\n" + put)
    statuses = []
    while not client.is_closed():
        statuses.append(client.reply().status)
    assert statuses in ([400], [201, 400])
    assert node.store.revision == statuses.count(201)


def test_a_request_byte_by_byte(client: Connection) -> None:
    for byte in request_bytes("PUT", "/v1/kv/a", [("Content-Type", "text/plain")], b"value"):
        client.send(bytes([byte]))
    assert client.reply().status == 201
    assert client.request("GET", "/v1/kv/a").body == b"value"


def test_leave_to_send_the_body_is_given(client: Connection) -> None:
    headers = [("Content-Length", "5"), ("Expect", "100-continue")]
    client.send(request_bytes("PUT", "/v1/kv/a", headers))
    assert client.reply().status == 100
    client.send(b"value")
    assert client.reply().status == 201
    assert client.request("GET", "/v1/kv/a").body == b"value"


@pytest.mark.parametrize(
    ("target", "length", "status"),
    [("/v1/kv/a", len(TOO_LARGE), 413), ("/v1/kv/a?tll=1s", 5, 400), ("/nowhere", 5, 404)],
)
def test_no_leave_for_what_is_refused_anyway(
    client: Connection, target: str, length: int, status: int
) -> None:
    """The answer says that the connection ends: nobody could tell whether the body still comes."""
    headers = [("Content-Length", str(length)), ("Expect", "100-continue")]
    client.send(request_bytes("PUT", target, headers))
    reply = client.reply()
    assert reply.status == status
    assert reply.headers["connection"] == "close"


def test_connection_close_is_heeded(client: Connection) -> None:
    assert client.request("GET", "/livez", [("Connection", "close")]).status == 200
    assert client.is_closed()


def test_http_1_0_closes_after_the_answer(client: Connection) -> None:
    client.send(b"GET /livez HTTP/1.0\r\n\r\n")
    assert client.reply().status == 200
    assert client.is_closed()


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "tcp", "TLS/1.0"])
def test_no_protocol_is_switched(client: Connection, upgrade: str) -> None:
    """As ``curl --http2`` asks for it."""
    headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", upgrade), ("HTTP2-Settings", "AAM")]
    assert client.request("PUT", "/v1/kv/a", headers, b"value").status == 201
    assert client.request("GET", "/v1/kv/a").body == b"value"


def test_many_connections(node: RestNode) -> None:
    clients = [Connection(node) for _ in range(100)]
    for i, client in enumerate(clients):
        client.send(request_bytes("PUT", f"/v1/kv/{i}", body=b"v"))
    assert sorted(client.reply().json["revision"] for client in clients) == list(range(1, 101))
    for client in clients:
        client.close()
    node.wait_for_no_connections()
