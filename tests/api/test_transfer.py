"""``POST /v1/cluster/leader``: hand the lead over."""

from __future__ import annotations

import pytest

from raftkv.errors import BadRequest, NoSuccessor, Outcome, TimedOut
from tests.api.client import Connection
from tests.api.node import RestNode

PATH = "/v1/cluster/leader"


@pytest.mark.parametrize(
    ("body", "leader"),
    [(b'{"id": "n2"}', "n2"), (b"{}", "n3"), (b'{"id": null}', "n3"), (b"", "n3"), (None, "n3")],
)
def test_hands_over(node: RestNode, client: Connection, body: bytes | None, leader: str) -> None:
    reply = client.request("POST", PATH, body=body)
    assert (reply.status, reply.json) == (200, {"leader": leader, "term": 7})
    assert node.service.leader == leader


def test_the_timeout(node: RestNode, client: Connection) -> None:
    assert client.request("POST", f"{PATH}?timeout=1s", body=b"{}").status == 200
    assert client.request("POST", PATH, body=b"{}").status == 200
    assert node.service.timeouts_ms == [950, 4750]


@pytest.mark.parametrize(
    "body", [b"n2", b"[]", b'"n2"', b'{"id": 2}', b'{"node": "n2"}', b'{"id": "n2", "x": 1}', b"\xff", b"{"]
)
def test_another_body_is_refused(node: RestNode, client: Connection, body: bytes) -> None:
    reply = client.request("POST", PATH, body=body)
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert node.service.timeouts_ms == []


@pytest.mark.parametrize("length", [4097, 10_000])
def test_a_large_body_is_refused(node: RestNode, client: Connection, length: int) -> None:
    reply = client.request("POST", PATH, body=b" " * length)
    assert (reply.status, reply.json["code"]) == (413, "too_large")
    assert reply.json["detail"] == f"the body has {length} bytes; at most 4096 are allowed here"
    assert client.request("POST", PATH, body=b" " * 4096).status == 200


def test_a_large_body_in_chunks_is_refused(node: RestNode, client: Connection) -> None:
    headers = [("Transfer-Encoding", "chunked")]
    client.send(b"")
    reply = client.request("POST", PATH, headers, b"1388\r\n" + b" " * 5000 + b"\r\n0\r\n\r\n")
    assert (reply.status, reply.json["code"]) == (413, "too_large")


def test_a_body_that_does_not_come(node: RestNode, client: Connection) -> None:
    client.send(b"POST /v1/cluster/leader?timeout=50ms HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    reply = client.reply("POST")
    assert (reply.status, reply.json["detail"]) == (400, "the body did not come within 48 ms")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("'n9' is no member of this cluster"), 400),
        (NoSuccessor("no other member could take over"), 503),
        (TimedOut("n2 did not take over in time", outcome=Outcome.UNKNOWN, leader="n1"), 504),
    ],
    ids=str,
)
def test_what_the_service_raises(
    node: RestNode, client: Connection, error: BadRequest | NoSuccessor | TimedOut, status: int
) -> None:
    node.service.transfer_error = error
    reply = client.request("POST", PATH, body=b'{"id": "n2"}')
    assert (reply.status, reply.json["detail"]) == (status, str(error))
    assert reply.json["outcome"] == error.outcome


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_other_methods(client: Connection, method: str) -> None:
    reply = client.request(method, PATH)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_an_unknown_parameter_is_refused(client: Connection) -> None:
    assert client.request("POST", f"{PATH}?to=n2", body=b"{}").status == 400
