"""Plain requests take a short way; nobody can tell by their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE

from raftkv.api.connection import Connection as Served
from raftkv.api.plain import Plain
from raftkv.errors import NoQuorum, Outcome, ShuttingDown, TimedOut
from raftkv.kv.commands import encode_put
from tests.api.client import Connection, Headers, Reply, request_bytes
from tests.api.node import LIMITS, LoopThread, RestNode

CLIENT = [("Accept", "*/*"), ("User-Agent", "x/1"), ("Accept-Encoding", "gzip")]
FORM = [("Content-Type", "application/x-www-form-urlencoded")]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each request that came alone on an idle connection was taken for a plain one."""
    seen: list[bool] = []
    take = Plain.take

    def spy(self: Plain, connection: Served, message: Any, payload: Any) -> bool:
        seen.append(take(self, connection, message, payload))
        return seen[-1]

    monkeypatch.setattr(Plain, "take", spy)
    return seen


def prepare(node: RestNode) -> None:
    """Keys of every kind: as it is, empty, with a type, with a lease, with a type that ends its line."""
    service = node.service
    node.run(service.require("leases", 1000.0))
    for command in (
        encode_put(b"a/b;c=1", b"value"),
        encode_put(b"empty", b""),
        encode_put(b"text", b"hello\r\n", "text/plain; charset=utf-8"),
        encode_put(b"leased", b"v", ttl_ms=60_000),
        encode_put(b"evil", b"v", "a\r\nX-Evil: 1"),
    ):
        node.run(service.propose(command, 1000.0))


def nothing(node: RestNode) -> None:
    pass


def failing(error: BaseException) -> Callable[[RestNode], None]:
    def fail(node: RestNode) -> None:
        node.service.propose_error = node.service.barrier_error = error

    return fail


def leaderless(node: RestNode) -> None:
    node.service.leader = None


GET, PUT = "GET", "PUT"
PLAIN: list[tuple[str, str, Headers, bytes | None, Callable[[RestNode], None]]] = [
    (GET, "a/b;c=1", (), None, nothing),
    (GET, "a/b;c=1", CLIENT, None, nothing),
    (GET, "a/b;c=1", (), b"", nothing),
    (GET, "a/b;c=1?consistency=stale", (), None, nothing),
    (GET, "a/b;c=1?consistency=lease", (), None, nothing),
    (GET, "a/b;c=1", (), None, leaderless),
    (GET, "empty", (), None, nothing),
    (GET, "text", (), None, nothing),
    (GET, "leased", (), None, nothing),
    (GET, "evil", (), None, nothing),
    (GET, "absent", (), None, nothing),
    (GET, "absent?consistency=stale", (), None, nothing),
    (GET, "text", (), None, failing(NoQuorum("nobody leads", retry_after_ms=1500))),
    (GET, "text", (), None, failing(RuntimeError("a mistake"))),
    (PUT, "new", (), b"value", nothing),
    (PUT, "a/b;c=1", CLIENT, b"value", nothing),
    (PUT, "new", FORM, b"value", nothing),
    (PUT, "new", [("Content-Type", "text/plain")], b"\x00\xff", nothing),
    (PUT, "new", (), b"", nothing),
    (PUT, "new", (), b"x" * 1000, nothing),
    (PUT, "new", (), b"value", leaderless),
    (PUT, "new", (), b"value", failing(TimedOut("too late", outcome=Outcome.UNKNOWN))),
    (PUT, "new", (), b"value", failing(RuntimeError("a mistake"))),
]


@pytest.mark.parametrize(("method", "target", "headers", "body", "given"), PLAIN)
def test_both_ways_answer_alike(  # noqa: PLR0917 - all that a request is
    node: RestNode,
    taken: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    log_lines: list[MutableMapping[str, Any]],
    method: str,
    target: str,
    headers: Headers,
    body: bytes | None,
    given: Callable[[RestNode], None],
) -> None:
    """... on two nodes of the same history, and leave the same behind."""
    long_way = RestNode(node._thread)
    try:
        answers, logs = [], []
        for each in (node, long_way):
            prepare(each)
            given(each)
            if each is long_way:
                monkeypatch.setattr(Plain, "take", lambda *_: False)
            log_lines.clear()
            with Connection(each) as client:
                answers.append(client.request(method, f"/v1/kv/{target}", headers, body))
                assert client.request("GET", "/livez").status == 200, "the connection is kept"
            logs.append([(line["event"], line["log_level"]) for line in log_lines])
        assert taken[0], "it isn't plain"
        assert told(answers[0]) == told(answers[1])
        assert logs[0] == logs[1]
        one, other = node.service, long_way.service
        assert (one.commands, one.timeouts_ms, one.by_lease) == (
            other.commands,
            other.timeouts_ms,
            other.by_lease,
        )
        assert {route: sum(tally.counts) for route, tally in one.tallies.requests.items()} == {
            route: sum(tally.counts) for route, tally in other.tallies.requests.items()
        }
        assert one.tallies.errors == other.tallies.errors
    finally:
        long_way.close()


def told(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of an answer, in order, but when it was made."""
    return reply.status, [(name, text) for name, text in reply.headers.items() if name != "date"], reply.body


UNUSUAL: list[tuple[str, str, Headers, bytes | None]] = [
    (GET, "a%20b", (), None),
    (GET, "a?consistency=linearizable", (), None),
    (GET, "a?consistency=stale&max_staleness=1s", (), None),
    (GET, "a?timeout=1s", (), None),
    (GET, "a#b", (), None),
    (GET, "", (), None),
    (GET, "a" * 5000, (), None),
    (GET, "ä", (), None),
    (GET, "a", [("Accept", "application/json")], None),
    (GET, "a", [("If-None-Match", '"1"')], None),
    (GET, "a", [("if-match", "*")], None),
    (GET, "a", [("Connection", "close")], None),
    (GET, "a", [("Connection", "upgrade"), ("Upgrade", "websocket")], None),
    ("HEAD", "a", (), None),
    ("DELETE", "a", (), None),
    ("POST", "a", (), b""),
    (PUT, "a", [("Idempotency-Key", "1")], b"v"),
    (PUT, "a", [("If-None-Match", "*")], b"v"),
    (PUT, "a", [("Expect", "100-continue")], b"v"),
    (PUT, "a", [("Content-Type", "text/a\tb")], b"v"),
    (PUT, "a?consistency=stale", (), b"v"),
    (PUT, "a?ttl=5s", (), b"v"),
    (PUT, "a", (), b"x" * 32_769),
]


@pytest.mark.parametrize(("method", "target", "headers", "body"), UNUSUAL)
def test_what_is_unusual_takes_the_long_way(  # noqa: PLR0917 - all that a request is
    node: RestNode, taken: list[bool], method: str, target: str, headers: Headers, body: bytes | None
) -> None:
    with Connection(node) as client:
        client.send(request_bytes(method, f"/v1/kv/{target}", headers, body))
        reply = client.reply(method)
        if reply.status == 100:
            reply = client.reply(method)
    assert reply.status in (200, 201, 400, 404, 405, 412, 413)
    assert not any(taken)


def test_http_1_0_is_told_that_its_connection_stays(node: RestNode, taken: list[bool]) -> None:
    with Connection(node) as client:
        client.send(b"GET /v1/kv/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.reply().headers["connection"] == "keep-alive"
    assert taken == [False]


def test_a_body_that_aiohttp_holds_back_comes_whole(loop_thread: LoopThread) -> None:
    """Its reader pauses the connection, and must have it resumed."""
    node = RestNode(loop_thread, replace(LIMITS, max_value_bytes=4 << 20, max_request_bytes=5 << 20))
    try:
        with Connection(node) as client:
            for _ in range(2):
                assert client.request("PUT", "/v1/kv/a", (), b"x" * (4 << 20)).status in (200, 201)
            assert len(client.request("GET", "/v1/kv/a").body) == 4 << 20
    finally:
        node.close()


def test_any_number_on_one_connection(node: RestNode, taken: list[bool]) -> None:
    """aiohttp's parser counts what it has handed out, and stops at a number."""
    requests = 2 * MAX_MSG_QUEUE_SIZE + 1
    with Connection(node) as client:
        for _ in range(requests):
            assert client.request("GET", "/v1/kv/a").status == 404
        assert taken == [True] * requests
        client.send(request_bytes("GET", "/v1/kv/a") * 3)
        assert [client.reply().status for _ in range(3)] == [404] * 3


def test_a_body_that_comes_later_takes_the_long_way(node: RestNode, taken: list[bool]) -> None:
    whole = request_bytes("PUT", "/v1/kv/a", (), b"value")
    with Connection(node) as client:
        client.send(whole[:-3])
        node.wait(lambda: len(taken) == 1)
        client.send(whole[-3:])
        assert client.reply().status == 201
    assert taken == [False]
    assert node.store.get(b"a") is not None


def test_a_node_over_its_quota_refuses_by_the_long_way(node: RestNode, taken: list[bool]) -> None:
    node._server._routes.plain._writes._quota_bytes = 10  # type: ignore[union-attr] # as a node's may be
    with Connection(node) as client:
        assert client.request("PUT", "/v1/kv/a", (), b"x" * 100).status == 507
    assert taken == [False]


class Held:
    """A node whose barriers wait until they are let go."""

    def __init__(self, node: RestNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self._node = node
        self.waiting: list[asyncio.Future[None]] = []
        monkeypatch.setattr(node.service, "barrier", self._barrier)

    def _barrier(self, timeout_ms: float, *, by_lease: bool = False) -> asyncio.Future[None]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    def wait_for(self, number: int) -> None:
        self._node.wait(lambda: len(self.waiting) == number)

    def let_go(self, number: int) -> None:
        async def go() -> None:
            self.waiting[number].set_result(None)

        self._node.run(go())


@pytest.fixture
def held(node: RestNode, monkeypatch: pytest.MonkeyPatch) -> Held:
    prepare(node)
    return Held(node, monkeypatch)


def test_no_answer_overtakes_another(node: RestNode, held: Held, taken: list[bool]) -> None:
    """What is sent while a plain request waits is answered after it, in its order."""
    with Connection(node) as client:
        client.send(request_bytes("GET", "/v1/kv/text"))
        held.wait_for(1)
        client.send(request_bytes("GET", "/v1/kv/empty?consistency=stale") * 2)
        client.send(request_bytes("GET", "/livez"))
        with Connection(node) as another:
            assert another.request("GET", "/livez").status == 200  # it had time for the others, too
        held.let_go(0)
        assert [client.reply().body for _ in range(3)] == [b"hello\r\n", b"", b""]
        assert client.reply().status == 200
    assert taken[0]


def test_several_at_once_are_answered_in_order(node: RestNode, client: Connection) -> None:
    prepare(node)
    targets = ["text", "empty", "leased", "absent", "text"]
    client.send(b"".join(request_bytes("GET", f"/v1/kv/{target}") for target in targets))
    assert [client.reply().status for _ in targets] == [200, 200, 200, 404, 200]


def test_whose_client_is_gone_does_no_harm(
    node: RestNode,
    held: Held,
    log_lines: list[MutableMapping[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Connection(node) as client:
        client.send(request_bytes("GET", "/v1/kv/text"))
        held.wait_for(1)
    node.wait_for_no_connections()
    held.let_go(0)
    traffic = node._server._routes.traffic  # type: ignore[union-attr] # it has been started
    node.wait(lambda: traffic.begun == traffic.ended == 1)
    assert [line for line in log_lines if line["log_level"] != "debug"] == []
    assert caplog.records == [], "the event loop complains"


def test_one_under_way_when_its_node_stops_is_the_last_on_its_connection(node: RestNode, held: Held) -> None:
    with Connection(node) as client:
        client.send(request_bytes("GET", "/v1/kv/text"))
        held.wait_for(1)
        drained = node.drain(60.0)
        node.wait(lambda: node._server is not None and node._server._routes.traffic.is_draining)
        held.let_go(0)
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert client.is_closed()
        drained.result(10.0)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ShuttingDown("this node is stopping", retry_after_ms=1000), 503, "shutting_down"),
        (RuntimeError("a mistake"), 500, "internal"),
    ],
    ids=str,
)
def test_a_service_that_refuses_at_once(
    node: RestNode, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(node.service, "barrier", refuse)
    with Connection(node) as client:
        reply = client.request("GET", "/v1/kv/a")
        assert (reply.status, reply.json["code"]) == (status, code)
        assert client.request("GET", "/livez").status == 200


def test_a_connection_in_use_is_not_idle(node: RestNode, taken: list[bool]) -> None:
    """aiohttp closes who asks for nothing; it hears of no plain request."""
    with Connection(node) as client:
        assert client.request("GET", "/v1/kv/a").status == 404
        assert node._server is not None
        (served,) = node._server.connections
        served._next_keepalive_close_time = 0.0
        assert client.request("GET", "/v1/kv/a").status == 404
        assert served._next_keepalive_close_time > 0.0
    assert taken == [True, True]


def test_nor_is_one_whose_request_waits(node: RestNode, held: Held, taken: list[bool]) -> None:
    """It was quiet for long, and asks right before it would be closed."""
    with Connection(node) as client:
        client.send(request_bytes("GET", "/v1/kv/text"))
        held.wait_for(1)
        assert node._server is not None
        (served,) = node._server.connections

        async def come_due() -> None:
            served._next_keepalive_close_time = 0.0
            served._process_keepalive()

        node.run(come_due())
        held.let_go(0)
        assert client.reply().body == b"hello\r\n"
    assert taken == [True]
