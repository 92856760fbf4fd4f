"""Who is let in, and what happens to garbage: the peer port serves on, whatever arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from raftkv.consensus.types import NodeId
from raftkv.transport.hello import LINK_PATH, CloseCode, objection
from raftkv.transport.limits import LinkLimits
from raftkv.wire.codec import encode_envelopes
from raftkv.wire.errors import WireError
from raftkv.wire.frames import FrameKind, pack_frame
from raftkv.wire.reports import encode_hello, encode_status
from tests.transport.nodes import (
    DEADLINE_S,
    NOWHERE,
    QUICK,
    Node,
    close_of,
    envelope,
    greeted,
    hello,
    identity,
    raw_link,
    running,
    until,
)

REFUSALS: list[tuple[dict[str, Any], CloseCode, str]] = [
    (
        {"version": 4, "max_version": 5},
        CloseCode.VERSION,
        "n1 speaks protocol 1-3, n2 4-5: upgrade n1, a release at a time",
    ),
    ({"cluster_id": "c2"}, CloseCode.WRONG_CLUSTER, "n1 is of cluster c1, not c2"),
    ({"node": "n1"}, CloseCode.OWN_ID, "n1 is this node's own id: two nodes have it, or it called itself"),
    ({"receiver": "n3"}, CloseCode.WRONG_NODE, "this is n1, not n3"),
    ({"node": "n9"}, CloseCode.UNKNOWN_NODE, "n1 doesn't expect n9 here"),
]


@pytest.mark.parametrize(
    ("fields", "code", "reason"), REFUSALS, ids=lambda value: getattr(value, "name", None)
)
async def test_refused_hello(fields: dict[str, Any], code: CloseCode, reason: str) -> None:
    one = Node("n1", {"n2": NOWHERE})
    with capture_logs() as lines:
        async with running(one), raw_link(one) as socket:
            await socket.send_bytes(encode_hello(hello(**fields)))
            assert await close_of(socket) == (code, reason)
    refused = [line for line in lines if line["event"] == "refused a link"]
    assert [(line["code"], line["reason"]) for line in refused] == [(code, reason)]
    assert one.changes == []
    assert one.lost == []


def test_a_sound_hello_is_welcome() -> None:
    assert objection(hello(), identity("n1"), (NodeId("n2"),)) is None


def test_a_long_reason_fits_in_a_close_frame() -> None:
    no = objection(hello(cluster_id="x" * 64), identity("n1" * 32, cluster="c" * 64), (NodeId("n2"),))
    assert no is not None
    assert len(no.message) == 123


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"cluster": "c2"}, "n2 is of cluster c2, not c1"),
        ({"peers": {"n3": NOWHERE}}, "n2 doesn't expect n1 here"),
        ({"name": "n3"}, "this is n3, not n2"),
    ],
    ids=["wrong cluster", "unknown node", "another node's address"],
)
async def test_the_refused_side_says_why_once(settings: dict[str, Any], reason: str) -> None:
    one = Node("n1", {"n2": NOWHERE})
    other = Node(**{"name": "n2", "peers": {"n1": NOWHERE}, **settings})
    with capture_logs() as lines:
        async with running(one, other):
            one.network.move_peer(NodeId("n2"), other.address)
            attempts = count_attempts(one)
            await until(lambda: len(attempts) >= 5)
    refused = [line for line in lines if line["event"] == "peer refuses this node" and line["peer"] == "n2"]
    assert [(line["reason"], line["log_level"]) for line in refused] == [(reason, "error")]
    warned = [line for line in lines if line["event"] == "refused a link" and line["reason"] == reason]
    assert len(warned) == 1
    assert one.lost == []


async def test_a_node_that_calls_itself() -> None:
    one = Node("n1", {"n2": NOWHERE})
    with capture_logs() as lines:
        async with running(one):
            one.network.move_peer(NodeId("n2"), one.address)
            attempts = count_attempts(one)
            await until(lambda: len(attempts) >= 3)
    assert [line["code"] for line in lines if line["event"] == "peer refuses this node"] == [CloseCode.OWN_ID]
    assert one.changes == []


def count_attempts(node: Node) -> list[float]:
    attempts: list[float] = []
    link = node.network._links[NodeId("n2")]
    next_s = link._backoff.next_s

    def counted() -> float:
        attempts.append(next_s())
        return attempts[-1] / 100

    link._backoff.next_s = counted  # type: ignore[method-assign]
    return attempts


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (encode_hello(hello("n3")), "n1 doesn't expect n3 here"),
        (encode_hello(hello(cluster_id="c2")), "n1 is of cluster c1, not c2"),
        (b"garbage", "not msgpack"),
        (encode_status({}), "expected a hello"),
        ("text", "the peer sent a text frame"),
        (None, "closed by the peer"),
    ],
    ids=["another node", "another cluster", "garbage", "status", "text", "close"],
)
async def test_the_connector_checks_the_answer(answer: bytes | str | None, says: str) -> None:
    """The other side may be anything that speaks WebSocket."""

    async def impostor(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        if isinstance(answer, bytes):
            await socket.send_bytes(answer)
        elif isinstance(answer, str):
            await socket.send_str(answer)
        else:
            await socket.close(code=1000, message=b"closed by the peer")
        await socket.receive()
        return socket

    server = aiohttp.web.ServerRunner(aiohttp.web.Server(impostor))
    await server.setup()
    await aiohttp.web.TCPSite(server, "127.0.0.1", 0).start()
    one = Node("n1", {"n2": f"127.0.0.1:{server.addresses[0][1]}"})
    with capture_logs() as lines:
        async with running(one):
            await until(lambda: any(says in line.get("reason", "") for line in lines))
    await server.cleanup()
    assert one.changes == []
    assert one.lost == []


BAD_FRAMES = {
    "garbage": (b"\xc1garbage", CloseCode.MALFORMED),
    "empty": (b"", CloseCode.MALFORMED),
    "second hello": (encode_hello(hello()), CloseCode.MALFORMED),
    "malformed envelope": (pack_frame(FrameKind.ENVELOPES, [[0, "n2", "n1", -1, 8, 1]]), CloseCode.MALFORMED),
    "malformed status": (pack_frame(FrameKind.STATUS, [5]), CloseCode.MALFORMED),
    "foreign sender": (encode_envelopes([envelope("n3", "n1")]), CloseCode.FOREIGN_ENVELOPE),
    "foreign receiver": (encode_envelopes([envelope("n2", "n3")]), CloseCode.FOREIGN_ENVELOPE),
    "one foreign of two": (
        encode_envelopes([envelope("n2", "n1"), envelope("n3", "n1")]),
        CloseCode.FOREIGN_ENVELOPE,
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_closes_the_link_with_one_line(name: str) -> None:
    frame, code = BAD_FRAMES[name]
    one = Node("n1", {"n2": NOWHERE})
    with capture_logs() as lines:
        async with running(one), raw_link(one) as socket:
            await greeted(socket)
            await socket.send_bytes(frame)
            assert (await close_of(socket))[0] == code
            await until(lambda: one.lost == ["n2"])
            assert one.frames == []
            downs = [line for line in lines if line["event"] == "peer link down"]
            assert len(downs) == 1
            assert "\n" not in downs[0]["reason"]
            async with raw_link(one) as again:
                await greeted(again)


async def test_a_text_frame_closes_the_link() -> None:
    one = Node("n1", {"n2": NOWHERE})
    async with running(one), raw_link(one) as socket:
        await greeted(socket)
        await socket.send_str("hello?")
        await close_of(socket)
        assert one.lost == ["n2"]


async def test_a_frame_over_the_limit_closes_the_link() -> None:
    limits = LinkLimits(target_frame_bytes=1000, max_frame_bytes=1000)
    one = Node("n1", {"n2": NOWHERE}, limits=limits)
    async with running(one), raw_link(one) as socket:
        await greeted(socket)
        await socket.send_bytes(b"x" * 1100)
        code, _ = await close_of(socket)
        assert code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_no_hello_in_time() -> None:
    one = Node("n1", {"n2": NOWHERE}, limits=LinkLimits(connect_timeout_ms=50))
    async with running(one), raw_link(one) as socket:
        assert (await close_of(socket))[0] == CloseCode.NO_HELLO


async def test_pings_are_no_hello() -> None:
    one = Node("n1", {"n2": NOWHERE}, limits=LinkLimits(connect_timeout_ms=50))
    async with running(one), raw_link(one) as socket:
        closed = asyncio.create_task(close_of(socket))
        async with asyncio.timeout(DEADLINE_S):
            while not closed.done():
                await socket.ping()
                await asyncio.sleep(0)
        assert closed.result()[0] == CloseCode.NO_HELLO


@pytest.mark.parametrize("first", [b"\x00\x01garbage", encode_status({}), encode_envelopes([])])
async def test_something_else_than_a_hello(first: bytes) -> None:
    one = Node("n1", {"n2": NOWHERE})
    async with running(one), raw_link(one) as socket:
        await socket.send_bytes(first)
        assert (await close_of(socket))[0] == CloseCode.MALFORMED


async def talk(node: Node, data: bytes, *, eof: bool = False) -> bytes:
    """Send ``data`` to the peer port as it is, and read the head of the answer, or what there is of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        writer.write(data)
        if eof:
            writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


UPGRADE = (
    f"GET {LINK_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
).encode()
HOST = "Host: x\r\n\r\n"
GARBAGE = {
    "random bytes": (bytes(range(256)) * 4, b"HTTP/1.0 400"),
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x8f" * 300, b"HTTP/1.0 400"),
    "plain get": (f"GET {LINK_PATH} HTTP/1.1\r\n{HOST}".encode(), b"HTTP/1.1 400"),
    "wrong path": (f"GET /v1/kv/a HTTP/1.1\r\n{HOST}".encode(), b"HTTP/1.1 404"),
    "wrong method": (f"PUT {LINK_PATH} HTTP/1.1\r\n{HOST}".encode(), b"HTTP/1.1 405"),
    "truncated upgrade": (UPGRADE[:60], b""),
    "nothing": (b"", b""),
    "bad websocket key": (
        UPGRADE.replace(b"AAAA==", b"!"),
        b"HTTP/1.1 400",
    ),
    "broken frame after the upgrade": (UPGRADE + b"\xff" * 100, b"HTTP/1.1 101"),
    "truncated frame after the upgrade": (UPGRADE + b"\x82\xfe\x01", b""),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_on_the_peer_port(name: str, caplog: pytest.LogCaptureFixture) -> None:
    data, expected = GARBAGE[name]
    one, two = Node("n1", {"n2": NOWHERE}), Node("n2", {"n1": NOWHERE})
    with capture_logs() as lines:
        async with running(one, two):
            await until(lambda: one.connected() and two.connected())
            answer = await talk(one, data, eof=not expected)
            assert answer.startswith(expected), answer
            two.network.send([envelope("n2", "n1", 1)])
            await until(lambda: one.rounds == [1])
            assert one.lost == []
            about_garbage = [line for line in lines if "peer link" not in line["event"]]
            about_garbage = [line for line in about_garbage if "can't connect" not in line["event"]]
            assert len(about_garbage) <= 1
    assert all("exc_info" not in line for line in lines)
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=10), st.booleans())
def test_random_bytes_never_stop_the_node(pieces: list[bytes], upgraded: bool) -> None:
    async def scenario() -> None:
        one = Node("n1", {"n2": NOWHERE}, limits=LinkLimits(connect_timeout_ms=20, close_timeout_ms=20))
        async with running(one):
            for piece in pieces:
                await talk(one, (UPGRADE if upgraded else b"") + piece, eof=not upgraded)
            async with raw_link(one) as socket:
                await greeted(socket)
                await socket.send_bytes(encode_envelopes([envelope("n2", "n1", 5)]))
                await until(lambda: one.rounds == [5])

    asyncio.run(scenario())


def test_an_identity_that_could_not_be_sent_is_refused_at_once() -> None:
    with pytest.raises(WireError, match="is not an id"):
        identity("n 1")
    with pytest.raises(WireError, match="is not a number"):
        identity("n1", incarnation=2**63)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_queue_bytes": 0},
        {"target_frame_bytes": 2 << 20, "max_frame_bytes": 1 << 20},
        {"max_frame_bytes": 128 << 20, "max_queue_bytes": 256 << 20},
        {"max_queue_bytes": 1 << 20},
        {"backoff_min_ms": 2_000},
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must|over"):
        LinkLimits(**limits)
    assert LinkLimits()
    assert QUICK
