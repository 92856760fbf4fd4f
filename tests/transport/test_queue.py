"""The send queue's bounds and order, and a peer that never reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from raftkv.consensus.membership import encode_membership
from raftkv.consensus.messages import (
    AppendEntries,
    ChangeMembers,
    ChangeMembersReply,
    Envelope,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    Propose,
)
from raftkv.consensus.types import (
    Entry,
    EntryKind,
    Index,
    Membership,
    NodeId,
    Remove,
    SnapshotMeta,
    Term,
    Verdict,
)
from raftkv.transport.hello import LINK_PATH
from raftkv.transport.limits import LinkLimits
from raftkv.transport.queue import SendQueue
from raftkv.wire.codec import decode_envelopes, envelope_size
from raftkv.wire.reports import decode_status, encode_hello, encode_status
from tests.transport.nodes import Node, envelope, hello, running, until

N2 = NodeId("n2")


def opened(**limits: Any) -> SendQueue:
    queue = SendQueue(N2, LinkLimits(**limits))
    queue.open()
    return queue


def blob(size: int) -> Envelope:
    return envelope("n1", "n2", message=Propose((b"x" * size,)))


def taken(queue: SendQueue) -> list[list[Envelope]]:
    frames = []
    while (frame := queue.take()) is not None:
        frames.append(decode_envelopes(frame))
    return frames


def test_a_closed_queue_drops() -> None:
    queue = SendQueue(N2, LinkLimits())
    queue.push(envelope("n1", "n2"))
    assert queue.take() is None
    assert queue.dropped_messages == 1
    queue.open()
    queue.push(envelope("n1", "n2"))
    queue.close()
    queue.open()
    assert queue.take() is None


def test_overflow_in_messages_drops_the_newest_and_says_so_once() -> None:
    queue = opened(max_queue_messages=3)
    sent = [envelope("n1", "n2", number) for number in range(5)]
    with capture_logs() as lines:
        for one in sent:
            queue.push(one)
    assert queue.dropped_messages == 2
    assert [line["event"] for line in lines] == ["peer queue full, dropping"]
    assert taken(queue) == [sent[:3]]
    queue.push(sent[4])  # there is room again
    assert taken(queue) == [[sent[4]]]


def test_overflow_in_bytes_drops_the_newest() -> None:
    limits = {"target_frame_bytes": 2000, "max_frame_bytes": 2000, "max_queue_bytes": 5000}
    queue = opened(**limits)
    sent = [blob(1000 + number) for number in range(6)]
    for one in sent:
        queue.push(one)
    held = 5000 // envelope_size(sent[0])
    assert queue.dropped_messages == 6 - held
    assert [one for frame in taken(queue) for one in frame] == sent[:held]
    queue.push(sent[5])  # what was taken no longer counts
    assert taken(queue) == [[sent[5]]]


def test_a_message_over_the_frame_limit_is_an_error_and_others_pass() -> None:
    queue = opened(target_frame_bytes=1000, max_frame_bytes=1000)
    with capture_logs() as lines:
        queue.push(blob(1001))
    queue.push(blob(1))
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("message over the frame limit", "error")
    ]
    assert queue.dropped_messages == 1
    assert len(taken(queue)) == 1


def test_what_cannot_be_encoded_is_an_error_and_others_pass() -> None:
    queue = opened()
    queue.push(envelope("n1", "n2", message=HeartbeatReply(2**64)))
    with capture_logs() as lines:
        assert queue.take() is None
    assert [line["log_level"] for line in lines] == ["error"]
    queue.push(envelope("n1", "n2"))
    assert len(taken(queue)) == 1


@given(st.lists(st.integers(0, 3000), max_size=40), st.integers(300, 4000))
def test_frames_keep_order_and_bounds(sizes: list[int], target_frame_bytes: int) -> None:
    queue = opened(target_frame_bytes=target_frame_bytes, max_frame_bytes=4000)
    sent = [blob(size) for size in sizes]
    for one in sent:
        queue.push(one)
    frames = []
    while (frame := queue.take()) is not None:
        assert len(frame) <= 4000
        frames.append(decode_envelopes(frame))
        if len(frames[-1]) > 1:
            assert len(frame) <= target_frame_bytes + 16
    assert [one for frame in frames for one in frame] == sent[: len(sent)]
    assert queue._waiting_bytes == 0


def test_many_small_messages_stay_under_the_protocols_array_limit() -> None:
    queue = opened(target_frame_bytes=4 << 20)
    for number in range(10_000):
        queue.push(envelope("n1", "n2", number))
    assert [len(frame) for frame in taken(queue)] == [4096, 4096, 1808]


def test_the_latest_status_goes_after_the_messages() -> None:
    queue = opened()
    queue.publish(encode_status({"n": 1}))
    queue.push(envelope("n1", "n2"))
    queue.publish(encode_status({"n": 2}))
    first, second = queue.take(), queue.take()
    assert first is not None
    assert second is not None
    assert len(decode_envelopes(first)) == 1
    assert decode_status(second) == {"n": 2}
    assert queue.take() is None


async def test_the_writer_is_woken_by_a_message_and_by_a_status() -> None:
    queue = opened()
    wakes: list[Callable[[], None]] = [
        lambda: queue.push(envelope("n1", "n2")),
        lambda: queue.publish(encode_status({})),
    ]
    for wake in wakes:
        waiter = asyncio.create_task(queue.filled())
        await asyncio.sleep(0)
        assert not waiter.done()
        wake()
        await waiter
        await queue.filled()  # still filled: doesn't wait
        assert queue.take() is not None


async def test_a_peer_that_never_reads_costs_bounded_memory() -> None:
    limits = LinkLimits(
        target_frame_bytes=100_000,
        max_frame_bytes=100_000,
        max_queue_bytes=1_000_000,
        ping_interval_ms=3_600_000,
    )
    release = asyncio.Event()

    async def deaf(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await socket.send_bytes(encode_hello(hello()))
        assert request.transport is not None
        request.transport.pause_reading()
        await release.wait()
        request.transport.abort()
        return socket

    server = aiohttp.web.ServerRunner(aiohttp.web.Server(deaf))
    await server.setup()
    await aiohttp.web.TCPSite(server, "127.0.0.1", 0).start()
    one = Node("n1", {"n2": f"127.0.0.1:{server.addresses[0][1]}"}, limits=limits)
    async with running(one):
        await until(lambda: ("n2", "out", True) in one.changes)
        queue = one.network._links[N2].queue
        written = 0
        while not one.network.dropped_messages()[N2]:
            one.network.send([blob(50_000)])
            written += 50_000
            await asyncio.sleep(0)
            # The kernel's buffers, the transport's and the queue: a deaf peer takes no more than these.
            assert written < 40 << 20
        assert queue._waiting_bytes <= limits.max_queue_bytes
        for _ in range(100):
            one.network.send([blob(50_000)])
            await asyncio.sleep(0)
        assert queue._waiting_bytes <= limits.max_queue_bytes
        assert one.network.dropped_messages()[N2] >= 100
        assert one.lost == []
        release.set()
        await until(lambda: one.lost == [N2])
    await server.cleanup()


async def test_a_deaf_peer_is_found_by_its_silence() -> None:
    """... even while the writer waits for it to read."""
    limits = LinkLimits(ping_interval_ms=100, backoff_min_ms=5)

    async def deaf(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        assert request.path == LINK_PATH
        socket = aiohttp.web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await socket.receive()
        await socket.send_bytes(encode_hello(hello()))
        assert request.transport is not None
        request.transport.pause_reading()
        await release.wait()
        request.transport.abort()
        return socket

    release = asyncio.Event()
    server = aiohttp.web.ServerRunner(aiohttp.web.Server(deaf))
    await server.setup()
    await aiohttp.web.TCPSite(server, "127.0.0.1", 0).start()
    one = Node("n1", {"n2": f"127.0.0.1:{server.addresses[0][1]}"}, limits=limits)
    async with running(one):
        await until(lambda: ("n2", "out", True) in one.changes)
        one.network.send([blob(5 << 20)] * 3)
        await until(lambda: one.lost == [N2])
        release.set()
    await server.cleanup()


@pytest.mark.parametrize("count", [1, 3])
def test_push_and_take_leave_nothing(count: int) -> None:
    queue = opened()
    for number in range(count):
        queue.push(envelope("n1", "n2", number))
    assert len(taken(queue)) == 1
    assert queue._waiting_bytes == 0


def config_entry(index: int) -> Entry:
    return Entry(Index(index), Term(1), EntryKind.CONFIG, 0, encode_membership(Membership.of("n1")))


def noop(index: int) -> Entry:
    return Entry(Index(index), Term(1), EntryKind.NOOP, 0, b"")


NEWER = [
    AppendEntries(Index(0), Term(0), (noop(1), config_entry(2)), Index(0)),
    ChangeMembers(1, Remove(N2), force=False),
    ChangeMembersReply(1, Verdict.DONE, Index(1), ""),
    InstallSnapshot(SnapshotMeta(Index(1), Term(1), 0), Membership.of("n1")),
]
OLDER = [AppendEntries(Index(0), Term(0), (noop(1),), Index(0)), HeartbeatReply(1), Propose((b"x",))]


@pytest.mark.parametrize("message", NEWER, ids=lambda message: type(message).__name__)
def test_what_an_older_peer_would_misread_is_not_sent_and_said_once_a_link(message: Message) -> None:
    queue = SendQueue(N2, LinkLimits())
    queue.open(1)
    with capture_logs() as lines:
        for _ in range(3):
            queue.push(envelope("n1", "n2", message=message))
    assert (queue.take(), queue.dropped_messages) == (None, 3)
    assert [(line["event"], line["speaks"], line["needed"]) for line in lines] == [
        ("the peer's release is too old for what the cluster does now: upgrade it", 1, 2)
    ]
    queue.close()
    queue.open(2)
    queue.push(envelope("n1", "n2", message=message))
    assert taken(queue) == [[envelope("n1", "n2", message=message)]]


@pytest.mark.parametrize("message", OLDER, ids=lambda message: type(message).__name__)
def test_what_an_older_peer_understands_is_sent(message: Message) -> None:
    queue = SendQueue(N2, LinkLimits())
    queue.open(1)
    queue.push(envelope("n1", "n2", message=message))
    assert taken(queue) == [[envelope("n1", "n2", message=message)]]
