"""A node that stops lets its connections go one by one, each after an answer that says so."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import TimeoutError as NotYet
from typing import Any

import pytest

from tests.api.client import Connection
from tests.api.node import DEADLINE_S, RestNode


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet connections are kept for longer than any of these tests takes, unless it says otherwise."""
    monkeypatch.setattr("raftkv.api.app._QUIET_S", 60.0)


def test_each_answer_is_the_last_on_its_connection(node: RestNode) -> None:
    """A request sent on a kept connection is answered, however late it comes; then the connection ends."""
    with Connection(node) as one, Connection(node) as two:
        for client in (one, two):
            reply = client.request("PUT", "/v1/kv/before", body=b"v")
            assert "connection" not in reply.headers
        drained = node.drain(60.0)
        for client in (one, two):
            assert not drained.done()
            reply = client.request("PUT", "/v1/kv/after", body=b"v")
            assert (reply.status, reply.headers["connection"]) == (200 if client is two else 201, "close")
            assert client.is_closed()
        drained.result(DEADLINE_S)


def test_errors_say_so_too(node: RestNode) -> None:
    with Connection(node) as client:
        assert client.request("GET", "/livez").status == 200
        drained = node.drain(60.0)
        reply = client.request("GET", "/nothing")
        assert (reply.status, reply.headers["connection"]) == (404, "close")
        drained.result(DEADLINE_S)


def test_without_connections_it_is_done(node: RestNode) -> None:
    node.drain(60.0).result(DEADLINE_S)


def test_quiet_connections_are_not_waited_for_long(node: RestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftkv.api.app._QUIET_S", 0.05)
    with Connection(node) as client:
        assert client.request("GET", "/livez").status == 200
        node.drain(60.0).result(DEADLINE_S)


def test_a_request_under_way_is_waited_for(node: RestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftkv.api.app._QUIET_S", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    async def barrier(timeout_ms: float) -> Any:
        begun.set()
        await asyncio.to_thread(go_on.wait, DEADLINE_S)

    monkeypatch.setattr(node.service, "barrier", barrier)
    with Connection(node) as client:
        client.send(b"GET /v1/kv HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(DEADLINE_S)
        drained = node.drain(60.0)
        with pytest.raises(NotYet):
            drained.result(0.1)
        go_on.set()
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        drained.result(DEADLINE_S)


def test_it_ends_in_time_whatever_is_under_way(node: RestNode) -> None:
    with Connection(node) as client:
        head = b"PUT /v1/kv/slow?timeout=60s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        client.send(head + b"half of it")
        node.drain(0.05).result(DEADLINE_S)
