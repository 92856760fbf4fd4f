"""The open-loop load of scripts/bench --against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import paced as module
import pytest
from harness import DrillError
from paced import Connection, Load, paced, percentile

DEADLINE_S = 30.0
REQUEST = b"PUT /v1/kv/key HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
CREATED = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """Where a connection writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


class Asked(Connection):
    """Remembers for when each request was due."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.due_s: list[float] = []

    def ask(self, due_s: float, request: bytes) -> None:
        self.due_s.append(due_s)
        super().ask(due_s, request)


def connected(load: Load) -> tuple[Asked, Wire]:
    connection, wire = Asked(load), Wire()
    connection.connection_made(wire)
    return connection, wire


def test_what_waits_for_a_connection_waits_from_when_it_was_due() -> None:
    load = Load(lambda: REQUEST)
    connection, wire = connected(load)
    for due_s in (1.0, 2.0, 3.0):
        load.due(due_s)
    assert wire.written == [REQUEST]
    assert load.unanswered(1) == 3
    connection.data_received(CREATED)
    connection.data_received(CREATED)
    assert connection.due_s == [1.0, 2.0, 3.0]
    assert load.unanswered(1) == 1
    assert load.answered_ms == sorted(load.answered_ms, reverse=True)  # each is due later than the one before


def test_a_request_does_not_wait_for_the_answer_to_another() -> None:
    load = Load(lambda: REQUEST)
    wires = [connected(load)[1] for _ in range(2)]
    load.due(1.0)
    load.due(2.0)
    assert [wire.written for wire in wires] == [[REQUEST], [REQUEST]]


def test_an_answer_in_pieces_counts_once_and_when_it_is_whole() -> None:
    load = Load(lambda: REQUEST)
    connection, _ = connected(load)
    load.due(1.0)
    for at in range(len(CREATED)):
        assert not load.answered_ms
        connection.data_received(CREATED[at : at + 1])
    assert len(load.answered_ms) == 1
    assert load.unanswered(1) == load.refused == 0


def test_errors_are_counted() -> None:
    load = Load(lambda: REQUEST)
    connection, _ = connected(load)
    for answer in (REFUSED, CREATED, REFUSED):
        load.due(1.0)
        connection.data_received(answer)
    assert load.refused == 2


class Server:
    """Answers the nth request with ``answer(n)``, or hangs up where that is None."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self.asked = 0
        self.answer = answer
        self.well_asked, self.left = asyncio.Event(), asyncio.Event()
        self.open: set[ServerEnd] = set()

    async def until_well_asked(self) -> None:
        """A hundred times."""
        await asyncio.wait_for(self.well_asked.wait(), DEADLINE_S)


class ServerEnd(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.remove(self)
        if not self._server.open:
            self._server.left.set()

    def data_received(self, data: bytes) -> None:
        self._server.asked += 1
        answer = self._server.answer(self._server.asked)
        if answer is None:
            self._transport.close()
        else:
            self._transport.write(answer)
        if self._server.asked == 100:
            self._server.well_asked.set()


@asynccontextmanager
async def serving(answer: Callable[[int], bytes | None]) -> AsyncIterator[tuple[Server, str]]:
    """A server and its HOST:PORT; over when all who came have left."""
    server = Server(answer)
    listening = await asyncio.get_running_loop().create_server(lambda: ServerEnd(server), "127.0.0.1", 0)
    async with listening:
        yield server, f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        await asyncio.wait_for(server.left.wait(), DEADLINE_S)


async def test_it_lasts_as_long_as_what_it_goes_with() -> None:
    async with serving(lambda _: CREATED) as (server, address):
        run = await paced(address, lambda: REQUEST, 1_000, server.until_well_asked())
    assert server.asked >= 100
    assert run.failed == 0
    assert run.per_second > 0
    assert 0 < run.p50_ms <= run.p99_ms


async def test_what_is_never_answered_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_DEADLINE_S", 0.5)
    async with serving(lambda n: None if n in (10, 20) else CREATED) as (server, address):
        run = await paced(address, lambda: REQUEST, 1_000, server.until_well_asked())
    assert run.failed == 2


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(200, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [100, 198, 200]
    assert percentile([7.0], 50) == 7
    with pytest.raises(DrillError):
        percentile([], 50)
