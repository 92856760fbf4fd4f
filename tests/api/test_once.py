"""Idempotency keys, times to live and leases of a put, and the quota."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from raftkv.kv.commands import encode_grant, encode_level
from raftkv.kv.levels import MACHINE_LEVEL
from tests.api.client import Connection
from tests.api.node import LIMITS, LoopThread, RestNode

KEY = [("Idempotency-Key", "0f1e-1")]
BATCH = b'{"ops": [{"increment": {"key": "n"}}]}'
TXN = b'{"then": [{"increment": {"key": "n"}}]}'


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/kv/a", b"v"),
        ("PUT", "/v1/kv/a?ttl=30s", b"v"),
        ("DELETE", "/v1/kv/b", None),
        ("DELETE", "/v1/kv?prefix=b", None),
        ("POST", "/v1/txn", TXN),
        ("POST", "/v1/batch", BATCH),
        ("PUT", "/v1/kv/a?if_absent=true", b"v"),
        ("PUT", "/v1/kv/b?if_absent=true", b"v"),
        ("POST", "/v1/compact", b'{"revision": 1}'),
    ],
)
def test_a_repeated_write_is_done_once_and_answered_alike(
    node: RestNode, client: Connection, method: str, path: str, body: bytes | None
) -> None:
    client.request("PUT", "/v1/kv/b", body=b"")
    first = client.request(method, path, KEY, body)
    revision = node.store.revision
    client.request("PUT", "/v1/kv/meanwhile", body=b"")
    again = client.request(method, path, KEY, body)
    assert (again.status, again.body) == (first.status, first.body)
    assert node.store.revision == revision + 1, "the one meanwhile"


def test_a_key_is_for_one_request(node: RestNode, client: Connection) -> None:
    assert client.request("PUT", "/v1/kv/a", KEY, b"1").status == 201
    for method, path, body in (
        ("PUT", "/v1/kv/a", b"2"),
        ("DELETE", "/v1/kv/a", None),
        ("POST", "/v1/txn", TXN),
    ):
        reply = client.request(method, path, KEY, body)
        assert (reply.status, reply.json["code"], reply.json["outcome"]) == (
            422,
            "token_reused",
            "not_applied",
        )
    assert client.request("PUT", "/v1/kv/a", [("Idempotency-Key", "other")], b"2").status == 200
    assert client.request("GET", "/v1/kv/a").body == b"2"


@pytest.mark.parametrize("token", ["", "x" * 257, "\xe9", "a\tb"])
def test_a_key_that_cannot_be_one(node: RestNode, client: Connection, token: str) -> None:
    reply = client.request("PUT", "/v1/kv/a", [("Idempotency-Key", token.encode())], b"1")
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert node.service.commands == []


def test_without_one_the_plain_command_is_proposed(node: RestNode, client: Connection) -> None:
    client.request("PUT", "/v1/kv/a", body=b"1")
    client.request("DELETE", "/v1/kv/a")
    assert node.service.machine.level == 1, "nobody had to understand more"


def test_a_put_with_a_time_to_live_has_a_lease_of_its_own(node: RestNode, client: Connection) -> None:
    done = client.request("PUT", "/v1/kv/a?ttl=30s", body=b"v")
    assert (done.status, done.json["lease"]) == (201, 1)
    lease = node.service.machine.leases.get(1)
    assert lease is not None
    assert (lease.ttl_ms, lease.own) == (30_000, True)
    assert client.request("GET", "/v1/kv/a?format=json").json["lease"] == 1
    assert "lease" not in client.request("PUT", "/v1/kv/a", body=b"v").json
    assert node.service.machine.leases.get(1) is None


def test_a_put_with_a_lease(node: RestNode, client: Connection, loop_thread: LoopThread) -> None:
    refused = client.request("PUT", "/v1/kv/a?lease=7", body=b"")
    assert (refused.status, refused.json["code"]) == (404, "no_such_lease")
    loop_thread.run(node.service.propose(encode_grant(5_000, 7), 1000))
    assert client.request("PUT", "/v1/kv/a?lease=7", body=b"").json["lease"] == 7
    assert node.store.leased(7) == [b"a"]


@pytest.mark.parametrize(
    "query", ["ttl=5", "ttl=99ms", "ttl=", "lease=0", "lease=x", "ttl=5s&lease=1", "ttl=999999999h"]
)
def test_a_lease_that_cannot_be(node: RestNode, client: Connection, query: str) -> None:
    assert client.request("PUT", f"/v1/kv/a?{query}", body=b"").status == 400
    assert client.request("DELETE", f"/v1/kv/a?{query}").status == 400
    assert node.service.commands == []


@pytest.fixture
def full(loop_thread: LoopThread) -> Iterator[RestNode]:
    """A node whose store is at its quota, less 100 bytes."""
    node = RestNode(loop_thread, replace(LIMITS, quota_bytes=1_000))
    loop_thread.run(node.service.propose(encode_level(MACHINE_LEVEL), 1000))
    node.store.put(b"k", b"v" * (900 - 1 - node_row_bytes()), None)
    assert node.store.size_bytes == 900
    yield node
    node.close()


def test_a_node_that_has_not_seen_a_deletion_yet_looks_again(full: RestNode, loop_thread: LoopThread) -> None:
    async def barrier(timeout_ms: float) -> None:
        full.store.delete(b"k")

    full.service.barrier = barrier  # type: ignore[method-assign]
    with Connection(full) as client:
        assert client.request("PUT", "/v1/kv/a", body=b"v" * 200).status == 201


def test_what_was_done_before_the_store_was_full_is_answered_again(full: RestNode) -> None:
    with Connection(full) as client:
        first = client.request("PUT", "/v1/kv/a", KEY, b"v" * 50)
        assert first.status == 201
        assert client.request("PUT", "/v1/kv/b", body=b"v" * 50).status == 507
        again = client.request("PUT", "/v1/kv/a", KEY, b"v" * 50)
        assert (again.status, again.body) == (201, first.body)


def node_row_bytes() -> int:
    return 28  # of a row but its value


def test_a_full_store_takes_no_more_and_says_what_to_do(full: RestNode) -> None:
    value = b"v" * 200
    put = {"put": {"key": "a", "value": value.decode()}}
    increment = {"increment": {"key": "n" * 64}}
    writes: list[tuple[str, str, bytes]] = [
        ("PUT", "/v1/kv/a", value),
        ("PUT", "/v1/kv/a?ttl=5s", value),
        ("POST", "/v1/txn", json.dumps({"then": [put]}).encode()),
        ("POST", "/v1/txn", json.dumps({"else": [increment, increment]}).encode()),
        ("POST", "/v1/batch", json.dumps({"ops": [put]}).encode()),
        ("POST", "/v1/locks/l", json.dumps({"ttl": "5s", "value": value.decode()}).encode()),
        ("POST", "/v1/elections/e?wait=5s", json.dumps({"ttl": "5s", "value": value.decode()}).encode()),
        ("PUT", "/v1/elections/e?lease=1", json.dumps({"value": value.decode()}).encode()),
        ("POST", "/v1/services/s", json.dumps({"id": "i", "address": "a" * 200, "ttl": "5s"}).encode()),
    ]
    with Connection(full) as client:
        for method, path, body in writes:
            for headers in ([], KEY):
                reply = client.request(method, path, headers, body)
                assert (reply.status, reply.json["code"]) == (507, "quota_exceeded"), path
                assert "--quota-bytes" in reply.json["detail"]
                assert (reply.json["size_bytes"], reply.json["quota_bytes"]) == (900, 1000)
        assert client.request("PUT", "/v1/kv/small", body=b"v").status == 201, "there is room for that"
        assert client.request("GET", "/v1/kv/k").status == 200
        assert client.request("POST", "/v1/compact", body=b'{"revision": 1}').status == 200
        deletion = json.dumps({"ops": [{"delete": {"key": "none"}}, {"get": {"key": "k"}}]}).encode()
        assert client.request("POST", "/v1/batch", body=deletion).status == 200
        assert client.request("DELETE", "/v1/kv/k").status == 200
        assert client.request("PUT", "/v1/kv/a", body=value).status == 201, "there is room again"
