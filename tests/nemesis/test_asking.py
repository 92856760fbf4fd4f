"""Whatever a node answers, or doesn't, the history says what is known of it, and no more."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from raftkv.testing.cluster import free_ports
from raftkv.verify.history import (
    Action,
    Condition,
    ConditionKind,
    Delete,
    Deleted,
    Get,
    Item,
    List,
    Listed,
    Outcome,
    Put,
    Read,
    Refused,
    Result,
    Written,
)
from tests.nemesis.asking import Connection, Unexpected, perform
from tests.nemesis.notes import Note, read_notes, write_note
from tests.nemesis.roaming import Worker, leaves

TIMEOUT_MS = 2_000
ITEM = {"key": "a", "value": "v", "create_revision": 1, "mod_revision": 3, "version": 2, "content_type": None}
REVISIONS = {
    "Raftkv-Revision": "7",
    "Raftkv-Create-Revision": "1",
    "Raftkv-Mod-Revision": "3",
    "Raftkv-Version": "2",
}
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def node(handler: Handler) -> AsyncIterator[Connection]:
    """Something that answers like a node; the connection to it."""
    (port,) = free_ports(1)
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    connection = Connection("127.0.0.1", port)
    try:
        yield connection
    finally:
        connection.close()
        await runner.cleanup()


def answering(status: int, body: Any, headers: dict[str, str] | None = None) -> Handler:
    async def answer(request: web.BaseRequest) -> web.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=raw, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("action", "handler", "result"),
    [
        (Put(b"a", b"v"), answering(201, {"revision": 7, "version": 1, "created": True}), Written(7, 1)),
        (Put(b"a", b"v"), answering(200, {"revision": 7, "version": 2, "created": False}), Written(7, 2)),
        (Put(b"a", b"v"), answering(412, {"mod_revision": 3, "revision": 7}), Refused(3, 7)),
        (Delete(b"a"), answering(200, {"deleted": 1, "revision": 7}), Deleted(1, 7)),
        (Delete(b"a"), answering(200, {"deleted": 0, "revision": 7}), Deleted(0, 7)),
        (Delete(b"a"), answering(412, {"mod_revision": 0, "revision": 7}), Refused(0, 7)),
        (Get(b"a"), answering(200, b"v", REVISIONS), Read(Item(b"v", 1, 3, 2), 7)),
        (Get(b"a", stale=True), answering(404, {"revision": 7}), Read(None, 7)),
        (
            List(),
            answering(200, {"items": [ITEM], "cursor": "c", "revision": 7}),
            Listed(((b"a", Item(b"v", 1, 3, 2)),), True, 7),
        ),
    ],
)
async def test_answers(action: Action, handler: Handler, result: Result) -> None:
    async with node(handler) as connection:
        operation = await perform(connection, "c", action, TIMEOUT_MS)
    assert (operation.client, operation.action, operation.outcome) == ("c", action, Outcome.OK)
    assert operation.result == result
    assert operation.call <= operation.end < math.inf


@pytest.mark.parametrize("status", [429, 503, 504])
@pytest.mark.parametrize(("told", "outcome"), [("not_applied", Outcome.FAIL), ("unknown", Outcome.UNKNOWN)])
async def test_errors(status: int, told: str, outcome: Outcome) -> None:
    async with node(answering(status, {"outcome": told})) as connection:
        operation = await perform(connection, "c", Put(b"a", b"v"), TIMEOUT_MS)
    assert (operation.outcome, operation.result) == (outcome, None)
    assert math.isinf(operation.end) == (outcome is Outcome.UNKNOWN)


@pytest.mark.parametrize(
    ("action", "handler"),
    [
        (Put(b"a", b"v"), answering(500, {})),
        (Put(b"a", b"v"), answering(400, {})),
        (Put(b"a", b"v"), answering(404, {})),
        (Put(b"a", b"v"), answering(201, {"revision": 7, "version": 2, "created": True})),
        (Get(b"a"), answering(304, b"", REVISIONS)),
    ],
)
async def test_what_no_node_may_answer(action: Action, handler: Handler) -> None:
    async with node(handler) as connection:
        with pytest.raises(Unexpected):
            await perform(connection, "c", action, TIMEOUT_MS)


async def test_nobody_listens() -> None:
    (port,) = free_ports(1)
    operation = await perform(Connection("127.0.0.1", port), "c", Put(b"a", b"v"), TIMEOUT_MS)
    assert operation.outcome is Outcome.FAIL


async def test_a_broken_connection_is_unknown_and_nothing_is_repeated() -> None:
    """Also on a connection that has served before: there others repeat."""
    asked: list[str] = []

    async def break_at_second(request: web.BaseRequest) -> web.Response:
        asked.append(request.method)
        if len(asked) == 2:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"deleted": 0, "revision": len(asked)})

    async with node(break_at_second) as connection:
        outcomes = [(await perform(connection, "c", Delete(b"a"), TIMEOUT_MS)).outcome for _ in range(3)]
    assert outcomes == [Outcome.OK, Outcome.UNKNOWN, Outcome.OK]
    assert len(asked) == 3


async def test_no_answer_in_time_is_unknown() -> None:
    hanging = asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.Response:
        await hanging.wait()
        return web.Response()

    async with node(hang) as connection:
        operation = await perform(connection, "c", Put(b"a", b"v"), -900)  # 100 ms in all
        assert (operation.outcome, operation.end) == (Outcome.UNKNOWN, math.inf)
        hanging.set()


@pytest.mark.parametrize(
    ("condition", "header"),
    [
        (Condition(ConditionKind.EXISTS), ("If-Match", "*")),
        (Condition(ConditionKind.ABSENT), ("If-None-Match", "*")),
        (Condition(ConditionKind.REVISION_IN, (3, 4)), ("If-Match", '"3", "4"')),
        (Condition(ConditionKind.REVISION_NOT_IN, (3,)), ("If-None-Match", '"3"')),
    ],
)
async def test_conditions_are_asked_for(condition: Condition, header: tuple[str, str]) -> None:
    seen: list[web.BaseRequest] = []

    async def keep(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.json_response({"mod_revision": 1, "revision": 1}, status=412)

    async with node(keep) as connection:
        await perform(connection, "c", Put(b"x/1", b"v", condition), TIMEOUT_MS)
    assert seen[0].headers[header[0]] == header[1]
    assert seen[0].rel_url.raw_path == "/v1/kv/x%2F1"


async def test_stale_reads_are_asked_for() -> None:
    seen: list[str] = []

    async def keep(request: web.BaseRequest) -> web.Response:
        seen.append(request.rel_url.query.get("consistency", ""))
        return web.json_response({"revision": 1}, status=404)

    async with node(keep) as connection:
        for stale in (True, False):
            await perform(connection, "c", Get(b"a", stale=stale), TIMEOUT_MS)
    assert seen == ["stale", ""]


async def test_a_read_says_how_consistent_it_is_to_be() -> None:
    """And a connection, how often it was opened: of one node, or of a life of it."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.rel_url.query_string)
        return web.json_response({"revision": 7}, status=404)

    async with node(answer) as connection:
        for _ in range(2):
            await perform(connection, "c", Get(b"a", stale=True), TIMEOUT_MS, {"max_staleness": "200ms"})
        assert connection.opened == 1
        connection.close()
        await perform(connection, "c", Get(b"a"), TIMEOUT_MS, {"consistency": "lease"})
        assert connection.opened == 2
    assert asked[1] == f"consistency=stale&max_staleness=200ms&timeout={TIMEOUT_MS}ms"
    assert asked[2] == f"consistency=lease&timeout={TIMEOUT_MS}ms"


class Locksmith(Worker):
    errors = (409,)


@pytest.mark.parametrize(
    ("handler", "outcome", "status"),
    [
        (answering(201, {"lease": 7, "revision": 3}), Outcome.OK, 201),
        (answering(409, {"code": "lock_held"}), Outcome.OK, 409),
        (answering(503, {"outcome": "not_applied"}), Outcome.FAIL, 503),
        (answering(504, {"outcome": "unknown"}), Outcome.UNKNOWN, 504),
    ],
)
async def test_what_a_worker_notes(handler: Handler, outcome: Outcome, status: int) -> None:
    notes: list[Note] = []
    async with node(handler) as connection:
        worker = Locksmith("w.1", [f"{connection.host}:{connection.port}"], Random(1), notes.append)
        note = await worker.ask("grant", "POST", "/v1/leases", {"ttl": "1s"}, asked={"n": 1})
        worker.close()
    assert notes == [note]
    assert (note.outcome, note.status, note.asked, note.done) == (outcome, status, {"n": 1}, status == 201)
    assert math.isfinite(note.end) == (outcome is not Outcome.UNKNOWN)
    assert json.loads(write_note(note))["client"] == "w.1"


@pytest.mark.parametrize("status", [404, 500])
async def test_a_worker_expects_what_the_interface_has(status: int) -> None:
    async with node(answering(status, {})) as connection:
        worker = Locksmith("w.1", [f"{connection.host}:{connection.port}"], Random(1), lambda note: None)
        with pytest.raises(Unexpected, match=str(status)):
            await worker.ask("grant", "POST", "/v1/leases", {})
        worker.close()


async def test_a_worker_whom_nobody_hears() -> None:
    (port,) = free_ports(1)
    notes: list[Note] = []
    worker = Worker("w.1", [f"127.0.0.1:{port}"], Random(1), notes.append)
    note = await worker.ask("grant", "POST", "/v1/leases", {})
    assert (note.outcome, note.done, note.revision) == (Outcome.FAIL, False, None)


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    lost = Note("w.1", "txn", 1.5, math.inf, Outcome.UNKNOWN, asked={"id": "w.1-1"})
    told = Note("w.1", "txn", 1.5, 2.5, Outcome.OK, 200, {"id": "w.1-1"}, {"revision": 4})
    (tmp_path / "notes").write_text(write_note(lost) + write_note(told))
    assert read_notes(tmp_path / "notes") == [lost, told]


def test_mistakes_are_told_one_by_one() -> None:
    one, other = Unexpected("a 400"), Unexpected("a 500")
    assert list(leaves(ExceptionGroup("", [ExceptionGroup("", [one]), other]))) == [one, other]
