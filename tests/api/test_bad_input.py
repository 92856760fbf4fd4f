"""Requests that are too large, broken or no HTTP: a clear problem or a clean close, and the node goes on."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from raftkv.api import Limits
from tests.api.client import Connection, Headers, chunked, request_bytes
from tests.api.node import LIMITS, LoopThread, RestNode

CHUNKED = [("Transfer-Encoding", "chunked")]
PROBLEM_FIELDS = {"type", "title", "status", "detail", "code", "outcome"}


@pytest.fixture(autouse=True)
def _goes_on(node: RestNode, log_lines: list[MutableMapping[str, Any]]) -> Iterator[None]:
    """After each test the node serves others, let go of its connections, and logged no failure of its own."""
    yield
    with Connection(node) as client:
        assert client.request("PUT", "/v1/kv/after", body=b"v").status == 201
    node.wait_for_no_connections()
    assert [line for line in log_lines if line["log_level"] in ("error", "warning")] == []


def refused(client: Connection, status: int, code: str, method: str = "PUT") -> None:
    reply = client.reply(method)
    assert (reply.status, reply.json["code"]) == (status, code), reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(reply.json) == PROBLEM_FIELDS
    assert reply.json["outcome"] == "not_applied"


# -- too large -------------------------------------------------------------------------------------------


def test_keys_up_to_the_limit(node: RestNode, client: Connection) -> None:
    longest = LIMITS.max_key_bytes
    for method in ("PUT", "GET", "DELETE"):
        assert client.request(method, "/v1/kv/" + "k" * longest).status in (200, 201)
        assert client.request(method, "/v1/kv/" + "%6b" * longest).status in (200, 201, 404)
        for too_long in ("k" * (longest + 1), "%C3%A9" * (longest // 2 + 1), "k" * 20_000):
            client.send(request_bytes(method, f"/v1/kv/{too_long}"))
            refused(client, 413, "too_large", method)


def test_values_up_to_the_limit(client: Connection) -> None:
    largest = b"v" * LIMITS.max_value_bytes
    assert client.request("PUT", "/v1/kv/a", body=largest).status == 201
    assert client.request("PUT", "/v1/kv/b", CHUNKED, chunked(largest[:100], largest[100:])).status == 201
    for headers, body in (([], largest + b"x"), (CHUNKED, chunked(largest, b"x"))):
        client.send(request_bytes("PUT", "/v1/kv/c", headers, body))
        refused(client, 413, "too_large")
    assert client.request("GET", "/v1/kv/c").status == 404
    assert client.request("GET", "/v1/kv/b").body == largest


def test_a_body_without_end_is_not_gathered(node: RestNode) -> None:
    """Refused as soon as it is over the limit, while the client still sends."""
    with Connection(node) as client:
        client.send(request_bytes("PUT", "/v1/kv/a", CHUNKED, b""))
        client.send(b"1000\r\n" + b"v" * 0x1000 + b"\r\n")
        for _ in range(LIMITS.max_request_bytes // 0x1000):
            client.send(b"1000\r\n" + b"v" * 0x1000 + b"\r\n")
        refused(client, 413, "too_large")


def test_a_large_length_is_refused_before_the_body_comes(node: RestNode) -> None:
    with Connection(node) as client:
        client.send(request_bytes("PUT", "/v1/kv/a", [("Content-Length", "99999999999")]))
        refused(client, 413, "too_large")


def test_a_body_of_a_delete_has_the_same_limit(client: Connection) -> None:
    client.send(request_bytes("DELETE", "/v1/kv/a", [], b"v" * (LIMITS.max_value_bytes + 1)))
    refused(client, 413, "too_large", "DELETE")


def test_a_value_may_be_as_large_as_a_request(loop_thread: LoopThread) -> None:
    node = RestNode(loop_thread, Limits(64, 1000, 1000, 5000, 60_000))
    with Connection(node) as client:
        for headers, body in (([], b"v" * 1000), (CHUNKED, chunked(b"v" * 1000))):
            assert client.request("PUT", "/v1/kv/a", headers, body).status in (200, 201)
        for headers, body in (([], b"v" * 1001), (CHUNKED, chunked(b"v" * 1001))):
            assert client.request("PUT", "/v1/kv/a", headers, body).status == 413
    node.close()


def test_a_request_line_that_is_too_long(client: Connection) -> None:
    client.send(request_bytes("GET", "/v1/kv/" + "k" * 40_000))
    refused(client, 414, "uri_too_long", "GET")
    assert client.is_closed()


@pytest.mark.parametrize(
    "headers", [[("X", "y" * 20_000)], [("X" * 20_000, "y")], [(f"X{i}", "y") for i in range(1000)]]
)
def test_headers_that_are_too_long_or_too_many(client: Connection, headers: Headers) -> None:
    client.send(request_bytes("GET", "/v1/kv/a", headers))
    refused(client, 400, "bad_request", "GET")
    assert client.is_closed()


# -- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/v1/kv/", "/v1/kv/?timeout=1s"])
def test_an_empty_key(client: Connection, target: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        client.send(request_bytes(method, target))
        refused(client, 400, "bad_request", method)


@pytest.mark.parametrize("path", ["%", "a%2", "%zz", "%%41", "a%G0", "%u0041", "100%"])
def test_bad_percent_encoding(client: Connection, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        client.send(request_bytes(method, f"/v1/kv/{path}"))
        refused(client, 400, "bad_request", method)


@pytest.mark.parametrize("path", ["a#b", "#b"])
def test_a_fragment_is_not_cut_off(client: Connection, path: str) -> None:
    client.send(request_bytes("PUT", f"/v1/kv/{path}", body=b"v"))
    refused(client, 400, "bad_request")


@pytest.mark.parametrize(
    "target", [b"/v1/kv/\xff", "/v1/kv/é".encode(), b"/v1/kv/a?timeout=\xff", b"/\xc3\xa9"]
)
def test_raw_bytes_beyond_ascii(node: RestNode, target: bytes) -> None:
    """A URL has none (RFC 3986); curl sends them as they are typed."""
    with Connection(node) as client:
        client.send(request_bytes("PUT", target, body=b"v"))
        refused(client, 400, "bad_request")
    assert len(node.store) == 0


# -- broken requests -------------------------------------------------------------------------------------

BROKEN = {
    "control bytes": b"\x00\x01\x02\x03\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "text": b"hello, is anybody there?\r\n\r\n",
    "no target": b"GET\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9": b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    "unknown method": b"FETCH /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "a header without a colon": b"GET /livez HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a header with a control byte": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: \x01\r\n\r\n",
    "a folded header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
    "a space before the colon": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\nv",
    "a negative length": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "a length with a sign": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nv",
    "a length in hex": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\nv",
    "a length without end": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "two lengths": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nvv",
    "a length and chunks": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "an unknown transfer encoding": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: zip\r\n\r\n",
    "a chunk size that is none": request_bytes("PUT", "/v1/kv/a", CHUNKED, b"xyz\r\nabc\r\n0\r\n\r\n"),
    "a chunk size too large": request_bytes("PUT", "/v1/kv/a", CHUNKED, b"f" * 20 + b"\r\nabc\r\n"),
    "a chunk longer than it says": request_bytes("PUT", "/v1/kv/a", CHUNKED, b"1\r\nabc\r\n0\r\n\r\n"),
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request(node: RestNode, name: str) -> None:
    with Connection(node) as client:
        client.send(BROKEN[name])
        refused(client, 400, "bad_request")
        assert client.is_closed()
    assert len(node.store) == 0


def test_a_chunk_that_breaks_while_the_body_is_awaited(node: RestNode) -> None:
    """The parser's error doesn't reach a handler that reads; the request's timeout does."""
    with Connection(node) as client, Connection(node) as other:
        client.send(request_bytes("PUT", "/v1/kv/a?timeout=50ms", CHUNKED, b"3\r\nabc\r\n"))
        assert other.request("GET", "/livez").status == 200
        client.send(b"no size\r\n")
        refused(client, 400, "bad_request")
    assert len(node.store) == 0


@pytest.mark.parametrize("headers", [CHUNKED, [("Content-Length", "10")]], ids=["chunked", "length"])
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_body_that_does_not_come_in_time(node: RestNode, method: str, headers: Headers) -> None:
    with Connection(node) as client:
        client.send(request_bytes(method, "/v1/kv/a?timeout=20ms", headers))
        refused(client, 400, "bad_request", method)
        assert client.is_closed()
    assert len(node.store) == 0


def test_the_wait_for_a_body_is_a_part_of_the_timeout(node: RestNode) -> None:
    with Connection(node) as client, Connection(node) as other:
        client.send(request_bytes("PUT", "/v1/kv/a?timeout=4s", [("Content-Length", "1")]))
        assert other.request("GET", "/livez").status == 200
        client.send(b"v")
        assert client.reply("PUT").status == 201
    (left_ms,) = node.service.timeouts_ms
    assert 0 < left_ms < 4000


CUT = {
    "in the request line": b"PUT /v1/k",
    "in the headers": b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nConte",
    "before the body": request_bytes("PUT", "/v1/kv/a", [("Content-Length", "10")]),
    "in the body": request_bytes("PUT", "/v1/kv/a", [("Content-Length", "10")]) + b"abc",
    "in a chunk": request_bytes("PUT", "/v1/kv/a", CHUNKED, b"10\r\nabc"),
    "between chunks": request_bytes("PUT", "/v1/kv/a", CHUNKED, b"3\r\nabc\r\n"),
    "before the last line": request_bytes("PUT", "/v1/kv/a", CHUNKED, b"3\r\nabc\r\n0\r\n"),
    "while it waits for leave": request_bytes(
        "PUT", "/v1/kv/a", [("Content-Length", "10"), ("Expect", "100-continue")]
    ),
    "at once": b"",
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "closed"])
def test_a_truncated_request_changes_nothing(node: RestNode, name: str, half: bool) -> None:
    with Connection(node) as client:
        client.send(CUT[name])
        if half:
            client.end()
            if "Expect" not in CUT[name].decode():
                assert client.is_closed()
    node.wait_for_no_connections()
    assert len(node.store) == 0
