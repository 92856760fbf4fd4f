"""Reads that say of themselves how fresh they are, and long polls."""

from __future__ import annotations

import pytest

from raftkv import AsyncClient, Item, NoSuchLease, ReadResult
from tests.sdk.stub import Answer, Stub, problem

SAID = {"Raftkv-Revision": "9", "Raftkv-Node": "n2", "Raftkv-Leader": "n1", "Raftkv-Consistency": "stale"}
ITEM = Item("k", b"v", 3, 7, 2)
FOUND = {"key": "k", "value": "v", "create_revision": 3, "mod_revision": 7, "version": 2, "lease": None}
UNCHANGED = Answer({}, 304, headers=SAID)


async def test_a_read_says_how_far_its_node_was_and_how_stale_it_may_be() -> None:
    stale = SAID | {"Raftkv-Staleness-Ms": "1500"}
    async with Stub([Answer(FOUND, headers=stale)]) as node, AsyncClient(node.url) as client:
        found = await client.read("k", consistency="stale", max_staleness=2.0, min_revision=5)
        assert found == ReadResult(ITEM, 9, "n2", "n1", "stale", 1.5)
        query = node.requests[0].query
        assert (query["consistency"], query["max_staleness"], query["min_revision"]) == (
            "stale",
            "2000ms",
            "5",
        )


async def test_so_does_one_that_finds_nothing() -> None:
    gone = problem(404, "key_not_found")
    absent = Answer(gone.document, 404, gone.content_type, SAID)
    async with Stub([absent]) as node, AsyncClient(node.url) as client:
        assert await client.read("k") == ReadResult(None, 9, "n2", "n1", "stale")
        assert await client.get("k") is None


async def test_another_404_is_an_error() -> None:
    async with Stub([problem(404, "no_such_lease")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(NoSuchLease):
            await client.get("k")


async def test_a_poll_goes_on_where_a_node_gives_up_early() -> None:
    async with (
        Stub([UNCHANGED, UNCHANGED, Answer(FOUND, headers=SAID)]) as node,
        AsyncClient(node.url) as client,
    ):
        found = await client.poll("k", since=6, wait=3600.0)
        assert found is not None
        assert (found.item, found.revision) == (ITEM, 9)
        assert [request.query["since"] for request in node.requests] == ["6"] * 3
        assert node.requests[0].query["wait"] == "50000ms"


async def test_a_poll_ends_without_a_change() -> None:
    async with Stub([UNCHANGED]) as node, AsyncClient(node.url) as client:
        assert await client.poll("k", wait=0.001) is None
        assert "since" not in node.requests[0].query


async def test_pages_are_read_at_every_level() -> None:
    page = {"items": [FOUND], "revision": 9, "cursor": None}
    async with Stub([Answer(page)]) as node, AsyncClient(node.url) as client:
        items = client.scan("k", consistency="stale", max_staleness=0.5, min_revision=5)
        assert [item async for item in items] == [ITEM]
        query = node.requests[0].query
        assert (query["consistency"], query["max_staleness"], query["min_revision"]) == (
            "stale",
            "500ms",
            "5",
        )
