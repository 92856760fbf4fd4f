"""Watches where nodes end their streams: whole revisions, each once, whatever breaks where."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from raftkv import AsyncClient, BadRequest, Event, RevisionCompacted
from raftkv.sdk.errors import BadAnswer
from tests.sdk.stub import DEADLINE_S, LOST, Step, Stream, Stub, problem


def sent(event_id: str | None, revision: int, key: str, kind: str = "put", **more: Any) -> str:
    data = {"revision": revision, "key": key, **more}
    if kind == "put":
        data |= {"value": "v", "create_revision": 1, "mod_revision": revision, "version": 1}
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {kind}\ndata: {orjson.dumps(data).decode()}\n\n"


def progress(revision: int) -> str:
    return f'id: {revision}\nevent: progress\ndata: {{"revision": {revision}}}\n\n'


async def read(client: AsyncClient, count: int, **arguments: Any) -> list[Event]:
    found = []
    async with asyncio.timeout(DEADLINE_S), client.watch(**arguments) as watch:
        async for event in watch:
            found.append(event)
            if len(found) == count:
                break
    return found


def keys(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.revision, event.key) for event in events]


async def test_a_stream_that_ends_goes_on_at_the_next_node_behind_what_was_given() -> None:
    first = Stream(progress(3) + sent("4", 4, "a") + ": alive\n\n" + sent("5", 5, "b"))
    second = Stream(sent("6", 6, "c"), ends=False)
    async with (
        Stub([first]) as one,
        Stub([second]) as two,
        AsyncClient([one.url, two.url], learn=False) as client,
    ):
        events = await read(client, 3, prefix="", from_revision=4)
        assert keys(events) == [(4, "a"), (5, "b"), (6, "c")]
        assert one.requests[0].query == {"prefix": "", "from": "4"}
        assert "Last-Event-ID" not in one.requests[0].headers
        assert two.requests[0].headers["Last-Event-ID"] == "5"


async def test_half_a_revision_is_not_given_and_is_asked_for_again() -> None:
    half = Stream(sent("4", 4, "a") + sent("4.1", 5, "b"))
    whole = Stream(sent("4.1", 5, "b") + sent("4.2", 5, "c") + sent("5", 5, "d", "delete"), ends=False)
    async with (
        Stub([half]) as one,
        Stub([whole]) as two,
        AsyncClient([one.url, two.url], learn=False) as client,
    ):
        groups = []
        async with asyncio.timeout(DEADLINE_S), client.watch(prefix="") as watch:
            async for events in watch.together():
                groups.append(keys(list(events)))
                if len(groups) == 2:
                    break
            assert watch.revision == 5
        assert groups == [[(4, "a")], [(5, "b"), (5, "c"), (5, "d")]]
        assert two.requests[0].headers["Last-Event-ID"] == "4"


@pytest.mark.parametrize("step", [LOST, problem(503, "shutting_down"), problem(429, "too_many_requests")])
async def test_a_node_that_can_not_be_watched_is_left_for_the_next(step: Step) -> None:
    async with (
        Stub([step]) as one,
        Stub([Stream(sent("4", 4, "a"), ends=False)]) as two,
        AsyncClient([one.url, two.url], learn=False) as client,
    ):
        assert keys(await read(client, 1, key="a")) == [(4, "a")]


async def test_what_is_forgotten_is_raised_with_the_oldest_revision() -> None:
    gone = 'event: compacted\ndata: {"oldest": 9, "end": "read anew"}\n\n'
    async with Stub([Stream(sent("4", 4, "a") + gone)]) as node, AsyncClient(node.url) as client:
        with pytest.raises(RevisionCompacted) as caught:
            await read(client, 2, prefix="")
        assert caught.value.extra["oldest"] == 9
    async with Stub([problem(410, "compacted", oldest=9)]) as node, AsyncClient(node.url) as client:
        with pytest.raises(RevisionCompacted) as caught:
            await read(client, 1, prefix="", from_revision=1)
        assert caught.value.extra["oldest"] == 9


async def test_events_are_read_whatever_their_size_and_line_ends() -> None:
    long = "x" * 300_000
    text = (sent("4", 4, long) + sent("5", 5, "b", "delete", prev={"key": "b", "value": "old"})).replace(
        "\n", "\r\n"
    )
    async with Stub([Stream(text, ends=False)]) as node, AsyncClient(node.url) as client:
        put, delete = await read(client, 2, prefix="", previous=True)
        assert put.key == long
        assert put.item is not None
        assert put.item.value == b"v"
        assert (delete.kind, delete.item) == ("delete", None)
        assert delete.previous is not None
        assert delete.previous.value == b"old"
        assert node.requests[0].query == {"prefix": "", "prev": "true"}


async def test_what_is_no_stream_of_a_node_is_said_to_be_none() -> None:
    async with Stub([Stream("id: 4\ndata: 7\n\n")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(BadAnswer, match="without a JSON object"):
            await read(client, 1, key="a")


@pytest.mark.parametrize("arguments", [{}, {"key": "a", "prefix": "b"}, {"key": "a", "start": "b"}])
async def test_one_thing_is_watched(arguments: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="watch a key"):
        AsyncClient("http://127.0.0.1:1").watch(**arguments)  # type: ignore[arg-type]
