"""Two real networks on loopback: delivery, loss, reconnects."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from raftkv.consensus.messages import AppendEntries
from raftkv.consensus.types import Entry, EntryKind, Index, NodeId, Term
from raftkv.errors import StartError
from raftkv.ports import Transport
from raftkv.transport.limits import LinkLimits
from tests.transport.nodes import (
    NOWHERE,
    QUICK,
    Node,
    envelope,
    greeted,
    pair,
    raw_link,
    received,
    running,
    silent_server,
    until,
)

N1, N2 = NodeId("n1"), NodeId("n2")


async def test_delivers_in_order_both_ways() -> None:
    one, two = pair()
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
        for number in range(1000):
            one.network.send([envelope("n1", "n2", number)])
            two.network.send([envelope("n2", "n1", 1000 + number)])
            if number % 7 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(one.rounds) == len(two.rounds) == 1000)
        assert two.rounds == list(range(1000))
        assert one.rounds == list(range(1000, 2000))
        assert one.network.dropped_messages() == {N2: 0}


async def test_what_is_sent_in_one_turn_is_one_frame() -> None:
    one, two = pair()
    async with running(one, two):
        await until(one.connected)
        one.network.send([envelope("n1", "n2", 1), envelope("n1", "n2", 2)])
        one.network.send([envelope("n1", "n2", 3)])
        await until(lambda: two.rounds == [1, 2, 3])
        assert len(two.frames) == 1


async def test_large_messages_are_split_into_frames_and_arrive_whole() -> None:
    limits = LinkLimits(target_frame_bytes=1 << 20, backoff_min_ms=5)
    one, two = pair(limits=limits)
    entries = [Entry(Index(1), Term(1), EntryKind.BATCH, 0, bytes([fill]) * 700_000) for fill in range(6)]
    sent = [
        envelope("n1", "n2", message=AppendEntries(Index(0), Term(0), (entry,), Index(0)))
        for entry in entries
    ]
    async with running(one, two):
        await until(one.connected)
        one.network.send(sent)
        await until(lambda: len(two.envelopes) == 6)
        assert two.envelopes == sent
        assert len(two.frames) == 6


async def test_three_nodes_each_get_their_own() -> None:
    names = ("n1", "n2", "n3")
    nodes = [Node(name, {other: NOWHERE for other in names if other != name}) for name in names]
    async with running(*nodes):
        await until(lambda: all(node.connected() for node in nodes))
        nodes[0].network.send([envelope("n1", "n3", 3), envelope("n1", "n2", 2)])
        await until(lambda: nodes[1].rounds == [2] and nodes[2].rounds == [3])
        assert [view.node for view in nodes[1].network.views()] == ["n1", "n3"]


async def test_views_and_status() -> None:
    one, two = pair()
    async with running(one, two):
        before = one.network.views()[0]
        assert (before.connected, before.client_url, before.status, before.status_age_ms) == (
            False,
            None,
            None,
            None,
        )
        two.network.publish({"role": "follower"})
        await until(lambda: one.connected() and one.network.views()[0].status is not None)
        view = one.network.views()[0]
        assert (view.node, view.address, view.client_url) == ("n2", two.address, "http://n2:8001")
        assert view.status == {"role": "follower"}
        assert view.status_age_ms is not None
        assert view.status_age_ms >= 0
        two.network.publish({"role": "candidate"})
        two.network.publish({"role": "leader", "peers": [1, None]})
        await until(lambda: one.network.views()[0].status == {"role": "leader", "peers": [1, None]})


async def test_the_latest_status_goes_out_again_on_a_new_link() -> None:
    one, two = pair()
    async with running(one, two):
        one.network.publish({"run": 1})
        await until(lambda: two.network.views()[0].status == {"run": 1})
        await two.network.close()
        again = Node("n2", {"n1": one.address}, port=two.port, incarnation=2)
        async with running(again):
            await until(lambda: again.network.views()[0].status == {"run": 1})


async def test_a_closed_peer_is_lost_once_and_found_again() -> None:
    one, two = pair()
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
        assert one.lost == []
        await two.network.close()
        await until(lambda: ("n2", "in", False) in one.changes and ("n2", "out", False) in one.changes)
        assert one.lost == [N2]
        assert two.lost == []  # it left by itself
        one.network.send([envelope("n1", "n2", 1)])  # to nobody: dropped, not kept
        assert one.network.dropped_messages() == {N2: 1}
        again = Node("n2", {"n1": one.address}, port=two.port, incarnation=2)
        async with running(again):
            await until(lambda: one.connected() and again.connected())
            one.network.send([envelope("n1", "n2", 2)])
            await until(lambda: again.rounds == [2])
            assert one.lost == [N2]
        await until(lambda: one.lost == [N2, N2])
        assert [change for change in one.changes if change[1] == "out"] == [
            ("n2", "out", True),
            ("n2", "out", False),
            ("n2", "out", True),
            ("n2", "out", False),
        ]


async def test_a_failing_reconnect_is_no_loss_and_logged_once() -> None:
    with capture_logs() as lines:
        one = Node("n1", {"n2": NOWHERE})
        async with running(one):
            link = one.network._links[N2]
            attempts: list[float] = []
            next_s = link._backoff.next_s

            def counted() -> float:
                attempts.append(next_s())
                return 0.0

            link._backoff.next_s = counted  # type: ignore[method-assign]
            await until(lambda: len(attempts) >= 10)
    assert one.lost == []
    assert one.changes == []
    assert [line["event"] for line in lines] == ["can't connect to peer, trying on"]
    assert attempts[0] <= 0.005 < attempts[-1] <= 0.040


async def test_an_incoming_link_ends_the_wait_for_the_next_attempt() -> None:
    """A restarted peer shows itself by connecting: no reason to wait out a backoff of an hour."""
    patient = LinkLimits(backoff_min_ms=3_600_000, backoff_max_ms=3_600_000)
    one = Node("n1", {"n2": NOWHERE}, limits=patient)
    with capture_logs() as lines:
        async with running(one):
            await until(lambda: lines)  # the first attempt has failed
            two = Node("n2", {"n1": one.address})
            async with running(two):
                one.network._register.move(N2, two.address)  # without hurrying the link, as move_peer does
                await until(one.connected)


async def test_an_incoming_link_ends_an_attempt_that_hangs() -> None:
    """Packets were dropped, and the network is whole again: the peer's link shows it."""
    async with silent_server() as address:
        patient = LinkLimits(connect_timeout_ms=3_600_000)
        one = Node("n1", {"n2": address}, limits=patient)
        async with running(one):
            link = one.network._links[N2]
            await until(lambda: link._attempt is not None)
            link._attempt_at_s -= 1  # it has hung for a second
            two = Node("n2", {"n1": one.address})
            async with running(two):
                one.network._register.move(N2, two.address)
                await until(one.connected)


@asynccontextmanager
async def another_process(one: Node) -> AsyncIterator[asyncio.subprocess.Process]:
    """n2 in a process of its own, linked with ``one`` both ways."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OTHER, one.address, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        one.network.move_peer(N2, f"127.0.0.1:{int(await process.stdout.readline())}")
        await until(one.connected)
        yield process
    finally:
        with suppress(ProcessLookupError):  # the test may have killed it
            process.kill()
        await process.communicate()


_OTHER = """
import asyncio, sys
from tests.transport.nodes import Node
async def main():
    node = Node("n2", {"n1": sys.argv[1]})
    await node.network.start()
    print(node.port, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_killed_process_is_noticed_at_once() -> None:
    """kill -9: the kernel closes its connections, and that is the news."""
    limits = LinkLimits(ping_interval_ms=3_600_000, backoff_min_ms=5)
    one = Node("n1", {"n2": NOWHERE}, limits=limits)
    async with running(one), another_process(one) as process:
        process.kill()
        await until(lambda: ("n2", "in", False) in one.changes and ("n2", "out", False) in one.changes)
        assert one.lost == [N2]


async def test_a_stopped_process_is_noticed_by_its_silence() -> None:
    """SIGSTOP: connections stay open, but nothing answers the pings."""
    limits = LinkLimits(ping_interval_ms=200, backoff_min_ms=5)
    one = Node("n1", {"n2": NOWHERE}, limits=limits)
    async with running(one), another_process(one) as process:
        process.send_signal(signal.SIGSTOP)
        await until(lambda: ("n2", "in", False) in one.changes and ("n2", "out", False) in one.changes)
        assert one.lost == [N2]
        process.send_signal(signal.SIGCONT)
        await until(one.connected)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_sockets_send_at_once_and_give_up_on_a_peer_that_acknowledges_nothing() -> None:
    one, two = pair(limits=LinkLimits(ping_interval_ms=1234))
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
        response = one.network._links[N2]._response
        assert response is not None
        assert response.connection is not None
        assert response.connection.transport is not None
        outgoing = response.connection.transport.get_extra_info("socket")
        incoming = one.network._listener._links[N2].socket.get_extra_info("socket")
        for end in (outgoing, incoming):
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2468
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_taken_port_is_a_start_error() -> None:
    one = Node("n1", {})
    async with running(one):
        other = Node("n2", {}, port=one.port)
        with pytest.raises(StartError, match=f"127.0.0.1:{one.port}") as caught:
            await other.network.start()
        assert caught.value.exit_code == 73
        assert "\n" not in str(caught.value)
        await other.network.close()


async def test_close_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    one, two = pair()
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
    await one.network.close()  # again: nothing happens
    assert asyncio.all_tasks() == before
    gc.collect()  # an unclosed connection would warn, and a warning is an error here


async def test_close_before_start_and_while_connecting() -> None:
    never = Node("n1", {"n2": NOWHERE})
    await never.network.close()
    async with silent_server() as address:
        one = Node("n1", {"n2": address})
        async with running(one):
            await until(lambda: one.network._links[N2]._attempt is not None)


async def test_a_failing_handler_closes_the_link_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: reported.append(context["exception"])
    )
    one, two = pair()
    fault = RuntimeError("invariant broken")

    def fail(envelopes: object) -> None:
        raise fault

    one.network._listener._on_envelopes = fail
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
        two.network.send([envelope("n2", "n1")])
        await until(lambda: reported)
        assert reported == [fault]
        await until(lambda: two.lost == [N1])
        await until(two.connected)  # and the node serves on


async def test_a_ping_that_cannot_be_answered_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp answers pings itself, and lets the failure out where the connection is closing just then."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    async def pong(self: web.WebSocketResponse, message: bytes = b"") -> None:
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(web.WebSocketResponse, "pong", pong)
    one = Node("n1", {"n2": NOWHERE})
    with capture_logs() as logs:
        async with running(one), raw_link(one) as socket:
            await greeted(socket)
            await socket.ping()
            await until(lambda: one.lost == [N2])
    assert [log["reason"] for log in logs if log["event"] == "peer link down"] == ["connection lost"]
    assert reported == []


async def test_a_new_link_replaces_the_old_one_without_a_loss() -> None:
    one = Node("n1", {"n2": NOWHERE})
    async with running(one), raw_link(one) as first, raw_link(one) as second:
        await greeted(first)
        await greeted(second)
        message = await received(first)
        assert message.type.name in {"CLOSED", "ERROR"}
        assert one.lost == []
        assert one.changes == [("n2", "in", True)]


async def test_the_next_run_of_a_peer_is_a_loss_of_the_last() -> None:
    """A machine that lost power says no goodbye: its next run does."""
    one = Node("n1", {"n2": NOWHERE})
    async with running(one), raw_link(one) as first, raw_link(one) as second:
        await greeted(first)
        await greeted(second, incarnation=2)
        await until(lambda: len(one.changes) == 3)
        assert one.lost == [N2]
        assert one.changes == [("n2", "in", True), ("n2", "in", False), ("n2", "in", True)]


def test_is_a_transport_and_no_peer_of_itself() -> None:
    async def make() -> Transport:
        return Node("n1", {}).network

    assert asyncio.run(make())
    with pytest.raises(ValueError, match="own peer"):
        Node("n1", {"n1": NOWHERE}, limits=QUICK)
