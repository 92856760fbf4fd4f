"""``/v1/locks`` and ``/v1/elections``: what is asked and answered. What there is to a queue is tested in
``tests/server/test_queues.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from raftkv.errors import NoQuorum
from raftkv.kv.places import ELECTION, LOCK, Queue, places
from tests.api.client import Connection, Reply
from tests.api.node import RestNode

TTL = b'{"ttl": "10s"}'
PATHS = pytest.mark.parametrize("path", ["/v1/locks", "/v1/elections"])
BOTH = pytest.mark.parametrize(
    ("path", "kind", "holder"), [("/v1/locks", LOCK, "holder"), ("/v1/elections", ELECTION, "leader")]
)


def acquire(client: Connection, path: str, body: bytes = TTL) -> dict[str, Any]:
    reply = client.request("POST", path, body=body)
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json
    return found


@contextmanager
def waiting(node: RestNode, queue: Queue, path: str, body: bytes = TTL) -> Iterator[Connection]:
    """A client whose request has its place in the queue."""
    before = len(places(node.store, queue))
    with Connection(node) as client:
        head = f"POST {path}?wait=60s HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.send(head.encode() + body)
        node.wait(lambda: len(places(node.store, queue)) == before + 1)
        yield client


@BOTH
def test_a_life(node: RestNode, client: Connection, path: str, kind: bytes, holder: str) -> None:
    queue, name = Queue(kind, b"a/b"), "a%2Fb"
    nobody = client.request("GET", f"{path}/{name}")
    assert (nobody.status, nobody.json) == (200, {"name": "a/b", holder: None, "waiters": 0, "revision": 0})
    first = acquire(client, f"{path}/{name}", b'{"ttl": "10s", "value": "me"}')
    (place,) = places(node.store, queue)
    assert first == {
        "name": "a/b",
        "lease": 1,
        "fencing_token": 1,
        "value": "me",
        "key": place.key.decode(),
    }
    with waiting(node, queue, f"{path}/{name}", b'{"ttl": "10s", "value_base64": "/w=="}') as other:
        shown = client.request("GET", f"{path}/{name}").json
        assert shown == {
            "name": "a/b",
            holder: {"lease": 1, "fencing_token": 1, "value": "me"},
            "waiters": 1,
            "revision": 2,
        }
        reply = client.request("DELETE", f"{path}/{name}?lease=1")
        assert (reply.status, reply.json) == (200, {"deleted": 1, "revision": 3})
        granted = other.reply()
        assert (granted.status, granted.json["fencing_token"]) == (200, 2)
        assert granted.json["value_base64"] == "/w=="
    assert client.request("DELETE", f"{path}/{name}?fencing_token=1").json["deleted"] == 0
    assert client.request("DELETE", f"{path}/{name}?fencing_token=2").json["deleted"] == 1
    assert len(node.store) == 0


@BOTH
def test_what_is_held(client: Connection, path: str, kind: bytes, holder: str) -> None:
    acquire(client, f"{path}/x")
    for query in ("", "?wait=0s", "?wait=1ms"):
        reply = client.request("POST", f"{path}/x{query}", body=TTL)
        assert (reply.status, reply.json["code"], reply.json["outcome"]) == (409, "lock_held", "not_applied")
        assert reply.json["holder"] == {"lease": 1, "fencing_token": 1}
    assert client.request("GET", f"{path}/x").json["waiters"] == 0


def test_with_a_lease_of_its_own(client: Connection) -> None:
    assert client.request("POST", "/v1/leases", body=TTL).json["lease"] == 1
    tokens = {acquire(client, "/v1/locks/x", b'{"lease": 1}')["fencing_token"] for _ in range(2)}
    assert tokens == {1}
    reply = client.request("POST", "/v1/locks/x", body=b'{"lease": 9}')
    assert (reply.status, reply.json["code"]) == (409, "lock_held")
    for query in ("", "?wait=1s"):
        reply = client.request("POST", f"/v1/locks/y{query}", body=b'{"lease": 9}')
        assert (reply.status, reply.json["code"]) == (404, "no_such_lease")
    assert client.request("DELETE", "/v1/leases/1").json["deleted"] == 1
    assert client.request("GET", "/v1/locks/x").json["holder"] is None


def test_a_client_that_goes_away_leaves_the_queue(node: RestNode, client: Connection) -> None:
    acquire(client, "/v1/locks/x")
    queue = Queue(LOCK, b"x")
    with waiting(node, queue, "/v1/locks/x") as other, waiting(node, queue, "/v1/locks/x") as last:
        other.close()
        node.wait(lambda: len(places(node.store, queue)) == 2)
        assert client.request("DELETE", "/v1/locks/x?lease=1").json["deleted"] == 1
        assert last.reply().status == 200


def test_a_repeated_request_finds_its_place(client: Connection) -> None:
    headers = [("Idempotency-Key", "k1")]
    replies = [client.request("POST", "/v1/locks/x?wait=1s", headers, TTL) for _ in range(2)]
    assert [reply.json["fencing_token"] for reply in replies] == [1, 1]
    reply = client.request("POST", "/v1/locks/x?wait=1s", headers, b'{"ttl": "11s"}')
    assert (reply.status, reply.json["code"]) == (422, "token_reused")


def test_a_leader_proclaims(client: Connection) -> None:
    leader = acquire(client, "/v1/elections/e", b'{"ttl": "10s", "value": "one"}')
    reply = client.request("PUT", "/v1/elections/e?lease=1", body=b'{"value": "uno"}')
    assert (reply.status, reply.json) == (200, {**leader, "value": "uno"})
    assert client.request("GET", "/v1/elections/e").json["leader"]["value"] == "uno"
    reply = client.request("PUT", "/v1/elections/e?lease=2", body=b'{"value": "dos"}')
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (409, "not_holder", "not_applied")
    reply = client.request("PUT", "/v1/locks/e?lease=1", body=b"{}")
    assert (reply.status, reply.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")


def once(client: Connection, method: str, path: str, token: str, body: bytes = b"") -> tuple[int, Any]:
    reply = client.request(method, path, [("Idempotency-Key", token)], body)
    return reply.status, reply.json


@PATHS
def test_a_repeated_release_is_done_once(client: Connection, path: str) -> None:
    lease = client.request("POST", "/v1/leases", body=TTL).json["lease"]
    body, released = b'{"lease": %d}' % lease, f"{path}/l?lease={lease}"
    nothing = once(client, "DELETE", released, "early")
    assert nothing == (200, {"deleted": 0, "revision": 0})
    acquire(client, f"{path}/l", body)
    assert once(client, "DELETE", released, "early") == nothing, "as it was answered the first time"
    done = once(client, "DELETE", released, "a")
    assert done == (200, {"deleted": 1, "revision": 2})
    again = acquire(client, f"{path}/l", body)
    assert once(client, "DELETE", released, "a") == done
    assert client.request("GET", f"{path}/l").json["revision"] == again["fencing_token"] == 3
    assert once(client, "DELETE", f"{path}/other?lease={lease}", "a")[0] == 422
    assert once(client, "DELETE", released, "b") == (200, {"deleted": 1, "revision": 4})


def test_a_repeated_proclamation_is_done_once(client: Connection) -> None:
    leader = acquire(client, "/v1/elections/e", b'{"ttl": "10s", "value": "me"}')
    path = f"/v1/elections/e?lease={leader['lease']}"
    first = once(client, "PUT", path, "a", b'{"value": "one"}')
    assert first == (200, {**leader, "value": "one"})
    assert once(client, "PUT", path, "b", b'{"value": "two"}')[0] == 200
    assert once(client, "PUT", path, "a", b'{"value": "one"}') == first
    assert client.request("GET", "/v1/elections/e").json["leader"]["value"] == "two"
    assert once(client, "PUT", path, "a", b'{"value": "three"}')[0] == 422
    assert client.request("DELETE", path).json["deleted"] == 1
    assert once(client, "PUT", path, "a", b'{"value": "one"}') == first, "also when nobody leads any more"
    assert once(client, "PUT", path, "c", b'{"value": "one"}')[0] == 409


def test_locks_elections_and_keys_are_apart(client: Connection) -> None:
    acquire(client, "/v1/locks/x")
    acquire(client, "/v1/elections/x")
    assert client.request("GET", "/v1/kv").json["items"] == []
    assert client.request("DELETE", "/v1/kv?prefix=").json["deleted"] == 0
    assert client.request("GET", "/v1/locks/x").json["holder"] is not None


@PATHS
def test_a_transaction_may_depend_on_who_holds_it(client: Connection, path: str) -> None:
    held = acquire(client, f"{path}/x")
    there = {"key": held["key"], "target": "create_revision", "value": held["fencing_token"]}
    put = {"put": {"key": "k", "value": "v"}}

    def transact(**parts: Any) -> Reply:
        return client.request("POST", "/v1/txn", body=json.dumps(parts).encode())

    assert transact(**{"if": [there], "then": [put]}).json["succeeded"]
    assert not transact(**{"if": [{**there, "value": 9}], "then": [put]}).json["succeeded"]
    check_refused(transact(then=[{"put": {"key": held["key"], "value": "v"}}]))  # and no more than that
    check_refused(transact(then=[{"delete": {"key": held["key"]}}]))
    check_refused(transact(**{"if": [{"key": "\0service/x\0i", "target": "exists"}]}))
    everything = {"key": held["key"], "end": "", "target": "exists", "value": False}
    assert client.request("DELETE", "/v1/kv/k").status == 200
    assert transact(**{"if": [everything]}).json["succeeded"]  # no range has it
    assert client.request("DELETE", f"{path}/x?fencing_token={held['fencing_token']}").status == 200
    assert not transact(**{"if": [there], "then": [put]}).json["succeeded"]


def check_refused(reply: Reply) -> None:
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (400, "bad_request", "not_applied")


@PATHS
@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("POST", "/x", b""),
        ("POST", "/x", b"{}"),
        ("POST", "/x", b'{"ttl": "1s", "lease": 1}'),
        ("POST", "/x", b'{"ttl": "1s", "name": "x"}'),
        ("POST", "/x", b'{"lease": "1"}'),
        ("POST", "/x", b'{"lease": 0}'),
        ("POST", "/x", b'{"ttl": "1ms"}'),
        ("POST", "/x", b'{"ttl": "1s", "value": 5}'),
        ("POST", "/x", b'{"ttl": "1s", "value": "a", "value_base64": "YQ=="}'),
        ("POST", "/x", b'{"ttl": "1s", "value_base64": "%"}'),
        ("POST", "/x?wait=soon", TTL),
        ("POST", "/x?wait=2h", TTL),
        ("POST", "/x?lease=1", TTL),
        ("POST", "/x/y", TTL),
        ("POST", "/", TTL),
        ("POST", "/%00", TTL),
        ("POST", "/%zz", TTL),
        ("GET", "/x?wait=1s", None),
        ("DELETE", "/x", None),
        ("DELETE", "/x?lease=1&fencing_token=1", None),
        ("DELETE", "/x?lease=a", None),
        ("DELETE", "/x?fencing_token=0", None),
    ],
)
def test_what_is_refused(
    node: RestNode, client: Connection, *, path: str, method: str, rest: str, body: bytes | None
) -> None:
    check_refused(client.request(method, path + rest, body=body))
    assert node.service.commands == []


def test_what_is_refused_of_a_proclamation(client: Connection) -> None:
    acquire(client, "/v1/elections/e")
    check_refused(client.request("PUT", "/v1/elections/e", body=b"{}"))
    check_refused(client.request("PUT", "/v1/elections/e?lease=1", body=b'{"ttl": "1s"}'))


def test_a_long_name_is_refused(client: Connection) -> None:
    assert client.request("POST", f"/v1/locks/{'n' * 65}", body=TTL).status == 413


def test_a_key_that_can_not_be_is_refused(client: Connection) -> None:
    check_refused(client.request("POST", "/v1/locks/x", [("Idempotency-Key", "k" * 257)], TTL))


@PATHS
def test_a_look_is_as_fresh_as_any_read(node: RestNode, client: Connection, path: str) -> None:
    node.service.barrier_error = NoQuorum("no leader")
    assert client.request("GET", f"{path}/x").status == 503
    assert client.request("GET", f"{path}/x?consistency=stale").status == 200
    assert client.request("DELETE", f"{path}/x?lease=1").status == 503
