"""Garbage on a live node's peer port: the link ends with one line, and writes go on through both nodes."""

from __future__ import annotations

import asyncio
import os
import struct
import tracemalloc
import zlib
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from raftkv.consensus.messages import Envelope, HeartbeatReply
from raftkv.consensus.types import GroupId, NodeId, Term
from raftkv.transport.hello import LINK_PATH, CloseCode
from raftkv.transport.limits import LinkLimits
from raftkv.wire.codec import decode_envelopes, encode_envelopes
from raftkv.wire.errors import WireError
from raftkv.wire.reports import decode_status, encode_hello
from tests.fuzz.budget import budget
from tests.fuzz.cluster import Pair, quiet, serving_pair
from tests.fuzz.mutations import mutated
from tests.fuzz.test_frames import frames, hellos
from tests.transport.nodes import DEADLINE_S, NOWHERE, Node, close_of, hello, raw_link, running, until
from tests.transport.test_refusals import talk

LIMITS = LinkLimits(target_frame_bytes=64 << 10, max_frame_bytes=1 << 20, max_queue_bytes=4 << 20)
UPGRADE = (
    f"GET {LINK_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
).encode()
SAYS_NOTHING = Envelope(GroupId(0), NodeId("n3"), NodeId("n1"), Term(0), HeartbeatReply(0))


def is_read(frame: bytes) -> bool:
    for decode in (decode_envelopes, decode_status):
        try:
            decode(frame)
        except WireError:
            continue
        return True
    return False


@given(st.lists(mutated(frames) | st.binary(max_size=50), min_size=1, max_size=5))
@budget(6)
def test_frames_that_cannot_be_read(drawn: list[bytes]) -> None:
    """Sound frames go through, one that isn't ends the link, and the other links and clients never notice."""
    broken = [frame for frame in drawn if not is_read(frame)]
    assume(broken)

    async def scenario() -> None:
        with capture_logs() as lines:
            async with serving_pair(LIMITS) as pair:
                for frame in broken:
                    before = len(lines)
                    async with pair.link() as link:
                        await link.send_bytes(encode_envelopes([SAYS_NOTHING]))
                        await link.send_bytes(frame)
                        code, _ = await close_of(link)
                        assert code in (CloseCode.MALFORMED, CloseCode.FOREIGN_ENVELOPE)
                    quiet(lines[before:], "n3", at_most=2)  # the link is up, the link is down
                await pair.serves()

    asyncio.run(scenario())


@given(st.lists(mutated(hellos.map(encode_hello)) | hellos.map(encode_hello), min_size=1, max_size=8))
@budget(6)
def test_hellos(drawn: list[bytes]) -> None:
    """Refused with a code and one line, or let in; never a fault of the node's own."""

    async def scenario() -> None:
        one = Node("n1", {"n2": NOWHERE}, limits=LIMITS)
        with capture_logs() as lines:
            async with running(one):
                for frame in drawn:
                    before = len(lines)
                    async with raw_link(one) as link:
                        await link.send_bytes(frame)
                        async with asyncio.timeout(DEADLINE_S):
                            answer = await link.receive()
                        if answer.type is aiohttp.WSMsgType.CLOSE:
                            assert answer.data in set(CloseCode) - {CloseCode.FAULT, CloseCode.STOPPING}
                    quiet(lines[before:], "n2", at_most=3)

    asyncio.run(scenario())


# -- what comes beneath frames: WebSocket, HTTP, TCP -----------------------------------------------------


def ws_frame(payload: bytes, *, head: int = 0x82) -> bytes:
    """A client's frame, masked with zeros. ``head``: 0x82 is a whole binary message, 0x02 its beginning, 0x00
    more of it, 0xc2 a compressed one."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 127]) + struct.pack(">Q", size)
    return bytes([head]) + length + bytes(4) + payload


async def throw(port: int, data: bytes) -> bytes:
    """Send ``data`` and nothing more; what the other side said until it closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write(data)
            await writer.drain()
            writer.write_eof()
            return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


async def greeted_bytes(pair: Pair) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A link as ``n3``, greeted, as bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.target.port)
    writer.write(UPGRADE + b"\r\n" + ws_frame(encode_hello(hello("n3"))))
    async with asyncio.timeout(DEADLINE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert b"extensions" not in head.lower()
        await reader.readexactly(10)
    return reader, writer


async def pour(writer: asyncio.StreamWriter, data: bytes, total: int) -> None:
    """Send ``data`` again and again, up to ``total`` bytes, until the other side has had enough."""
    sent = 0
    try:
        async with asyncio.timeout(DEADLINE_S):
            while sent < total:
                writer.write(data)
                await writer.drain()
                sent += len(data)
    except OSError:
        pass
    finally:
        writer.close()


BOMB = zlib.compressobj(9, zlib.DEFLATED, -15)
BOMB_BYTES = BOMB.compress(bytes(64 << 20)) + BOMB.flush(zlib.Z_SYNC_FLUSH)
FLOODS = {
    "a message without end, in parts": (
        ws_frame(b"x" * 60_000, head=0x02),
        ws_frame(b"x" * 60_000, head=0x00),
    ),
    "a frame over the limit": (b"\x82\xff" + struct.pack(">Q", 2 << 20) + bytes(4), b"x" * 60_000),
    "a frame of 2**63 bytes": (b"\x82\xff" + struct.pack(">Q", 2**63 - 1) + bytes(4), b"x" * 60_000),
    "a compressed bomb": (ws_frame(BOMB_BYTES, head=0xC2), ws_frame(BOMB_BYTES, head=0xC2)),
    "a continuation of nothing": (b"", ws_frame(b"x", head=0x80) * 5000),
    "a ping that is too long": (ws_frame(b"x" * 60_000, head=0x89), bytes(60_000)),
    "pings without end": (b"", ws_frame(b"x" * 100, head=0x89) * 500),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_on_a_link(name: str) -> None:
    """The node takes no more memory than some frames' worth, and goes on serving."""
    first, more = FLOODS[name]
    total = (1 if "pings" in name else 16) << 20  # nobody reads the pongs: what the kernel has room for
    with capture_logs() as lines:
        async with serving_pair(LIMITS) as pair:
            await pair.serves()
            tracemalloc.start()
            try:
                _, writer = await greeted_bytes(pair)
                writer.write(first)
                await pour(writer, more, total)
                down = ("peer link down", "n3")
                await until(lambda: down in [(line["event"], line.get("peer")) for line in lines])
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 6 * LIMITS.max_frame_bytes, peak
            await pair.serves()
    quiet(lines, "n3", at_most=2)


async def test_no_compression_is_agreed_on() -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    one = Node("n1", {"n2": NOWHERE}, limits=LIMITS)
    async with running(one):
        answer = await talk(one, UPGRADE + offer)
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"extensions" not in answer.lower()


async def test_the_connector_takes_no_bomb_either() -> None:
    """An impostor at a peer's address that claims compression, and answers the hello with a bomb."""

    async def impostor(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=False)
        socket.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"
        await socket.prepare(request)
        await socket.receive()
        assert request.transport is not None
        size = struct.pack(">Q", len(BOMB_BYTES))
        request.transport.write(b"\xc2\x7f" + size + BOMB_BYTES)
        await socket.receive()
        return socket

    server = web.ServerRunner(web.Server(impostor))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    one = Node("n1", {"n2": f"127.0.0.1:{server.addresses[0][1]}"}, limits=LIMITS)
    tracemalloc.start()
    try:
        with capture_logs() as lines:
            async with running(one):
                await until(lambda: any("can't connect" in line["event"] for line in lines))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await server.cleanup()
    assert peak < 8 * LIMITS.max_frame_bytes, peak
    assert one.changes == []
    assert all("exc_info" not in line for line in lines)


HEADS = st.lists(
    st.tuples(
        st.sampled_from(["Upgrade", "Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Host", "X"])
        | st.sampled_from(["Content-Length", "Transfer-Encoding", "Expect", "Sec-WebSocket-Protocol"]),
        st.sampled_from(
            ["websocket", "Upgrade", "13", "8", "AAAAAAAAAAAAAAAAAAAAAA==", "chunked", "-1", "9" * 30]
        )
        | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10),
    ),
    max_size=7,
)
TARGETS = st.sampled_from(
    [LINK_PATH, LINK_PATH + "?a=b", LINK_PATH + "/", "/", "*", "http://x/", "/%00", "//", "/" + "x" * 9000]
)


@given(st.sampled_from(["GET", "GET", "PUT", "HEAD", "BREW"]), TARGETS, HEADS, st.binary(max_size=50))
@budget(20)
def test_handshakes(method: str, target: str, heads: Any, tail: bytes) -> None:
    """A refusal, an upgrade or a close: no fault, and the next link comes in."""
    lines_of_head = "".join(f"{name}: {value}\r\n" for name, value in heads)

    async def scenario() -> None:
        one = Node("n1", {"n2": NOWHERE}, limits=LinkLimits(connect_timeout_ms=500, close_timeout_ms=50))
        with capture_logs() as lines:
            async with running(one):
                data = f"{method} {target} HTTP/1.1\r\n{lines_of_head}\r\n".encode() + tail
                answer = await throw(one.port, data)
                assert not answer.startswith(b"HTTP/1.1 5"), answer
                async with raw_link(one) as link:
                    await link.send_bytes(encode_hello(hello("n2")))
                    async with asyncio.timeout(DEADLINE_S):
                        assert (await link.receive()).type is aiohttp.WSMsgType.BINARY
        quiet(lines, "n2", at_most=4)

    asyncio.run(scenario())


async def test_a_crowd_of_strangers() -> None:
    """Many half-open handshakes and much noise at a time; the pair goes on, and says little."""
    with capture_logs() as lines:
        async with serving_pair(LIMITS) as pair:
            noise = [os.urandom(2000), UPGRADE + b"\r\n", UPGRADE[:40], UPGRADE + b"\r\n" + ws_frame(b"?")]
            await asyncio.gather(*(throw(pair.target.port, data) for data in noise for _ in range(40)))
            await pair.serves()
    refused = [line for line in lines if line["event"] == "refused a link"]
    assert len(refused) <= 3, "one line a minute for each kind"
    assert all("exc_info" not in line for line in lines)
