"""``GET /v1/kv/{key}?wait=``: answered when the key changes, or when the time is up."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.api.client import Connection
from tests.api.node import DEADLINE_S, LoopThread, RestNode
from tests.api.stream import compact


def put(client: Connection, key: str, value: str = "v") -> int:
    revision: int = client.request("PUT", f"/v1/kv/{key}", body=value.encode()).json["revision"]
    return revision


def waiting(node: RestNode, path: str) -> tuple[threading.Thread, list[Any]]:
    replies: list[Any] = []

    def ask() -> None:
        with Connection(node) as client:
            replies.append(client.request("GET", path))

    thread = threading.Thread(target=ask)
    thread.start()
    node.wait(lambda: len(node.service.hub) == 1)
    return thread, replies


def test_wait_for_a_change(node: RestNode, client: Connection) -> None:
    revision = put(client, "a", "old")
    client.request("GET", "/v1/kv/none?wait=1ms")
    thread, replies = waiting(node, f"/v1/kv/a?wait=10s&since={revision}")
    put(client, "b")
    put(client, "a", "new")
    thread.join(DEADLINE_S)
    assert (replies[0].status, replies[0].body) == (200, b"new")


def test_wait_for_the_end_of_a_key(node: RestNode, client: Connection) -> None:
    put(client, "a")
    client.request("GET", "/v1/kv/none?wait=1ms")
    thread, replies = waiting(node, "/v1/kv/a?wait=10s")
    client.request("DELETE", "/v1/kv/a")
    thread.join(DEADLINE_S)
    assert (replies[0].status, replies[0].json["code"]) == (404, "key_not_found")


def test_what_has_changed_already_is_not_waited_for(
    node: RestNode, client: Connection, loop_thread: LoopThread
) -> None:
    client.request("GET", "/v1/kv/none?wait=1ms")
    revision = put(client, "a", "1")
    put(client, "a", "2")
    assert client.request("GET", f"/v1/kv/a?wait=10s&since={revision}").body == b"2"
    client.request("DELETE", "/v1/kv/a")
    assert client.request("GET", f"/v1/kv/a?wait=10s&since={revision}").status == 404
    put(client, "b")
    compact(node, loop_thread, 4)
    assert client.request("GET", f"/v1/kv/a?wait=10s&since={revision}").status == 404, "it can't be known"


def test_nothing_changed_in_time(client: Connection) -> None:
    revision = put(client, "a")
    put(client, "b")
    for query in (f"since={revision}&wait=1ms", "wait=1ms", "since=99&wait=1ms"):
        reply = client.request("GET", f"/v1/kv/a?{query}")
        assert (reply.status, reply.body, reply.headers["raftkv-revision"]) == (304, b"", "2")


def test_a_node_that_stops_has_nobody_wait(node: RestNode, client: Connection) -> None:
    client.request("GET", "/v1/kv/none?wait=1ms")
    thread, replies = waiting(node, "/v1/kv/a?wait=60s")
    client.close()
    node.drain(60.0).result(DEADLINE_S)
    thread.join(DEADLINE_S)
    assert (replies[0].status, replies[0].headers["connection"]) == (304, "close")


@pytest.mark.parametrize(
    "query", ["since=1", "revision=1&wait=1s", "wait=soon", "wait=2m", "wait=1s&since=x"]
)
def test_a_wrong_wait(client: Connection, query: str) -> None:
    reply = client.request("GET", f"/v1/kv/a?{query}")
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
