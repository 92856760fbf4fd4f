"""Peers that come and go, guests, names that lead elsewhere the next time, and nodes that have moved."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from raftkv.consensus.types import NodeId
from raftkv.transport.hello import CloseCode
from raftkv.transport.link import OutgoingLink
from raftkv.transport.peers import MAX_GUESTS
from raftkv.wire.reports import encode_hello
from tests.transport.nodes import (
    NOWHERE,
    Node,
    close_of,
    envelope,
    free_port,
    greeted,
    hello,
    raw_link,
    running,
    until,
)

N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")


def listening(name: str, peers: dict[str, str] | None = None, **settings: Any) -> Node:
    """A node that says where it listens."""
    port = free_port()
    return Node(name, peers or {}, port=port, peer_address=f"127.0.0.1:{port}", **settings)


def names(node: Node) -> list[str]:
    return [view.node for view in node.network.views()]


async def test_a_new_peer_is_linked_with_and_told_the_status() -> None:
    one, two = Node("n1", {}), Node("n2", {})
    async with running(one, two):
        one.network.publish({"of": "n1"})
        one.set_peers(two)
        two.set_peers(one)
        await until(lambda: one.connected() and two.connected())
        assert (names(one), names(two)) == ([N2], [N1])
        one.network.send([envelope("n1", "n2", 7)])
        await until(lambda: two.rounds == [7])
        await until(lambda: two.network.views()[0].status == {"of": "n1"})


async def test_peers_may_be_set_before_the_start() -> None:
    one, two = Node("n1", {}), listening("n2", {"n1": NOWHERE})
    one.network.set_peers({N2: two.network._identity.peer_address})
    async with running(two), running(one):
        await until(lambda: ("n2", "out", True) in one.changes)


async def test_a_removed_peer_s_links_end_and_its_messages_are_dropped() -> None:
    one, two = Node("n1", {}), Node("n2", {"n1": NOWHERE})
    async with running(two), running(one):
        one.set_peers(two)
        await until(lambda: ("n2", "out", True) in one.changes and two.changes)
        one.set_peers()
        await until(lambda: ("n1", "in", False) in two.changes)
        assert one.changes == [("n2", "out", True), ("n2", "out", False)]
        assert (names(one), one.network.dropped_messages(), one.lost) == ([], {}, [])
        one.network.send([envelope("n1", "n2", 1)])  # the core may still send to it
        one.set_peers(two)
        await until(lambda: one.changes[2:] == [("n2", "out", True)])


async def test_a_link_does_nothing_more_once_its_peer_is_none() -> None:
    """Though it was just about to try again, or its hello has just been answered: all in one turn."""
    mistakes: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: mistakes.append(context))
    one, two = Node("n1", {}), Node("n2", {"n1": NOWHERE})
    async with running(two), running(one):
        one.network.set_peers({N2: NOWHERE})
        link = one.network._links[N2]
        await until(lambda: link._failures)
        link.hurry()
        one.set_peers()
        assert link._task is not None
        await until(link._task.done)
        assert mistakes == []
        greet = OutgoingLink._greet

        async def answered_too_late(self: OutgoingLink, *arguments: Any) -> Any:
            found = await greet(self, *arguments)
            asyncio.get_running_loop().call_soon(one.set_peers)
            await asyncio.sleep(0)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OutgoingLink, "_greet", answered_too_late)
            one.set_peers(two)
            link = one.network._links[N2]
            assert link._task is not None
            await until(link._task.done)
        assert (one.changes, mistakes) == ([], [])
        assert N2 not in one.network._register


async def test_one_that_is_no_peer_any_more_is_answered_while_it_has_a_link() -> None:
    """A leader that was removed leads until that is committed; its followers don't list it by then."""
    one, two = Node("n1", {}), Node("n2", {})
    async with running(one, two):
        one.set_peers(two)
        two.set_peers(one)
        await until(lambda: one.connected() and two.connected())
        one.set_peers()
        assert names(one) == []
        two.network.send([envelope("n2", "n1", 1)])
        await until(lambda: one.rounds == [1])
        one.network.send([envelope("n1", "n2", 2)])
        await until(lambda: two.rounds == [2])
        assert one.network.client_url(N2) == "http://n2:8001"
        assert (one.lost, two.lost) == ([], [])
        await two.network.close()
        await until(lambda: ("n2", "out", False) in one.changes)
        assert one.network.client_url(N2) is None
        assert one.lost == [N2]


async def test_a_stranger_of_our_cluster_is_heard_and_answered() -> None:
    """A leader that this node's older list doesn't have yet (thesis 4.1)."""
    one, two = listening("n1"), listening("n2")
    async with running(one, two):
        two.set_peers(one)
        await until(two.connected)
        two.network.send([envelope("n2", "n1", 1)])
        await until(lambda: one.rounds == [1])
        one.network.send([envelope("n1", "n2", 2)])
        await until(lambda: two.rounds == [2])
        assert names(one) == []
        one.set_peers(two)
        assert names(one) == [N2]
        assert one.connected()
        assert one.lost == []


async def test_strangers_are_so_many_at_most_and_must_say_where_they_are() -> None:
    one = Node("n1", {"n2": NOWHERE})
    async with running(one):
        async with raw_link(one) as socket:
            await socket.send_bytes(encode_hello(hello("n99")))
            assert (await close_of(socket))[0] == CloseCode.UNKNOWN_NODE
        links = [raw_link(one) for _ in range(MAX_GUESTS + 1)]
        sockets = [await link.__aenter__() for link in links]
        for number, each in enumerate(sockets[:-1]):
            await greeted(each, node=f"x{number}", peer_address=NOWHERE)
        await until(lambda: len(one.network._links) == 1 + MAX_GUESTS)
        await sockets[-1].send_bytes(encode_hello(hello("x99", peer_address=NOWHERE)))
        assert (await close_of(sockets[-1]))[0] == CloseCode.UNKNOWN_NODE
        async with raw_link(one) as peer:  # for a peer there is always room
            await greeted(peer)
        for link in links:
            await link.__aexit__(None, None, None)
        await until(lambda: len(one.network._links) == 1)


async def test_a_peer_is_looked_for_where_its_name_leads_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted container has another address under the same name."""
    one, two = Node("n1", {}), listening("n2")
    leads_to = ["127.0.0.2"]  # nobody listens there
    asked = []

    async def look_up(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (leads_to[0], port))]

    async with running(one, two):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        two.set_peers(one)
        one.network.set_peers({N2: f"n2.example:{two.port}"})
        await until(lambda: asked.count("n2.example") >= 2)
        assert ("n2", "out", True) not in one.changes
        leads_to[0] = "127.0.0.1"
        await until(lambda: ("n2", "out", True) in one.changes)


async def test_a_peer_whose_address_changed_is_found_there() -> None:
    one, two = Node("n1", {"n2": NOWHERE}), Node("n2", {})
    async with running(one, two):
        one.network.set_peers({N2: NOWHERE})
        one.set_peers(two)
        two.set_peers(one)
        await until(lambda: one.connected() and two.connected())
        assert one.network.views()[0].address == two.address
        one.network.set_peers({N2: NOWHERE})
        assert one.connected()  # a link that is up stays
        assert one.network.views()[0].address == NOWHERE


async def test_a_peer_that_has_moved_is_found_where_it_says() -> None:
    """Both restarted elsewhere: n1 knows n2's old address only, n2 has been told n1's new one."""
    one, two = Node("n1", {"n2": NOWHERE}), listening("n2", {"n1": NOWHERE}, hints={})
    async with running(one, two):
        two.network.set_peers({N1: one.address}, own_address=NOWHERE)
        one.network.set_peers({N2: NOWHERE})
        await until(lambda: one.connected() and two.connected())
        assert one.network.views()[0].address == NOWHERE  # the list is the list until it is changed


async def test_a_peer_that_has_not_moved_is_looked_for_where_the_list_has_it() -> None:
    """The list is each node's own view: a relay may stand in between."""
    one, two = Node("n1", {"n2": NOWHERE}), listening("n2", {"n1": NOWHERE})
    async with running(one, two):
        one.network.set_peers({N2: NOWHERE})
        two.network.set_peers({N1: one.address}, own_address=two.address)
        await until(lambda: ("n2", "in", True) in one.changes)
        assert one.network._register.addresses(N2) == (NOWHERE,)


async def test_hints_are_tried_too() -> None:
    two = listening("n2", {"n1": NOWHERE})
    one = Node("n1", {"n2": NOWHERE}, hints={"n2": two.network._identity.peer_address})
    async with running(two), running(one):
        await until(lambda: ("n2", "out", True) in one.changes)


def test_no_node_is_its_own_peer() -> None:
    one = Node("n1", {})
    with pytest.raises(ValueError, match="its own peer"):
        one.network.set_peers({N1: NOWHERE})


STARTED_OVER = (
    "n2's data directory was lost or replaced: it must come back under a new id "
    "(raftkv member replace n2 ...)"
)


@pytest.mark.parametrize(
    ("first", "then", "is_refused"),
    [
        ({"incarnation": 5}, {"incarnation": 5}, False),
        ({"incarnation": 5}, {"incarnation": 6}, False),
        ({"incarnation": 5}, {"incarnation": 4}, True),
        ({"incarnation": 5, "directory": "d1"}, {"incarnation": 6, "directory": "d1"}, False),
        ({"incarnation": 1, "directory": "d1"}, {"incarnation": 1, "directory": "d2"}, True),
        ({"incarnation": 1, "directory": "d1"}, {"incarnation": 2, "directory": "d2"}, True),
        ({"incarnation": 1}, {"incarnation": 1, "directory": "d2"}, False),
        ({"incarnation": 1, "directory": "d1"}, {"incarnation": 2}, False),
    ],
)
async def test_a_node_that_starts_over_is_refused(
    first: dict[str, Any], then: dict[str, Any], is_refused: bool
) -> None:
    one = Node("n1", {"n2": NOWHERE})
    async with running(one):
        async with raw_link(one) as before:
            await greeted(before, **first)
        await until(lambda: one.lost == [N2])
        async with raw_link(one) as after:
            if is_refused:
                await after.send_bytes(encode_hello(hello(**then)))
                assert await close_of(after) == (CloseCode.STARTED_OVER, STARTED_OVER)
            else:
                await greeted(after, **then)


async def test_who_knows_it_from_its_log_refuses_it_too() -> None:
    one = Node("n1", {"n2": NOWHERE}, known={"n2": 3})
    async with running(one), raw_link(one) as socket:
        await socket.send_bytes(encode_hello(hello(incarnation=2)))
        assert (await close_of(socket))[0] == CloseCode.STARTED_OVER
        async with raw_link(one) as again:
            await greeted(again, incarnation=3)


async def test_a_removed_node_is_still_known() -> None:
    one = Node("n1", {"n2": NOWHERE})
    async with running(one):
        async with raw_link(one) as before:
            await greeted(before, incarnation=5)
        await until(lambda: one.lost == [N2])
        one.network.set_peers({})
        async with raw_link(one) as after:
            await after.send_bytes(encode_hello(hello(incarnation=1, peer_address=NOWHERE)))
            assert (await close_of(after))[0] == CloseCode.STARTED_OVER
        one.network.set_peers({N2: NOWHERE})
        async with raw_link(one) as after:
            await after.send_bytes(encode_hello(hello(incarnation=1)))
            assert (await close_of(after))[0] == CloseCode.STARTED_OVER


async def test_the_node_that_started_over_is_told() -> None:
    """Whichever side connects: the one that knows refuses, and the other hears why."""
    one = Node("n1", {"n2": NOWHERE}, known={"n2": 3})
    two = Node("n2", {"n1": NOWHERE}, incarnation=1)
    with capture_logs() as lines:
        async with running(one, two):
            await until(lambda: two.disowned)
            assert two.disowned[0] == (N1, STARTED_OVER)
            await until(lambda: any(line["event"] == "wrong node at the peer's address" for line in lines))
            assert (one.changes, one.disowned) == ([], [])


@pytest.mark.parametrize("newer", ["n1", "n2"])
async def test_a_peer_of_version_1_is_understood(newer: str) -> None:
    """The release before this one said ``version`` and nothing of a range."""
    versions = {name: (1, 2) if name == newer else (1, 1) for name in ("n1", "n2")}
    one = Node("n1", {"n2": NOWHERE}, versions=versions["n1"])
    two = Node("n2", {"n1": NOWHERE}, versions=versions["n2"])
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
        one.network.send([envelope("n1", "n2", 1)])
        two.network.send([envelope("n2", "n1", 2)])
        await until(lambda: (two.rounds, one.rounds) == ([1], [2]))
        assert one.network._links[N2].queue.version == two.network._links[N1].queue.version == 1


async def test_peers_of_this_release_speak_its_newest_version() -> None:
    one, two = Node("n1", {"n2": NOWHERE}), Node("n2", {"n1": NOWHERE})
    async with running(one, two):
        await until(lambda: one.connected() and two.connected())
        assert one.network._links[N2].queue.version == 3
