"""The door of a node: who has connected before it closes is served, who comes later is refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from raftkv.config import Address
from raftkv.server.door import Door

DEADLINE_S = 10.0
CLIENTS = 50


class Echo(asyncio.Protocol):
    transport: Any  # uvloop's are no subclasses of asyncio's

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _runners() -> list[Callable[[Coroutine[Any, Any, None]], None]]:
    try:
        import uvloop  # noqa: PLC0415 (the server uses it where there is one)
    except ImportError:
        return [asyncio.run]
    return [asyncio.run, uvloop.run]


@pytest.mark.parametrize("run", _runners(), ids=lambda run: str(run.__module__))
def test_who_stands_in_the_door_is_let_in(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Connected by the kernel, its request sent, and not accepted by us: the loop had no turn in between."""

    async def scene() -> None:
        at = Address("127.0.0.1", free_port())
        door = Door(Echo)
        await door.open(at)
        clients = [socket.create_connection((at.host, at.port), DEADLINE_S) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(b"request %02d" % number)
        await door.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((at.host, at.port), DEADLINE_S)
        for number, client in enumerate(clients):
            client.settimeout(DEADLINE_S)
            answer = await asyncio.to_thread(client.recv, 100)
            assert answer == b"request %02d" % number
            client.close()
        await door.close()  # again: nothing

    run(scene())


def test_a_taken_port_is_an_error() -> None:
    async def scene() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                await Door(Echo).open(Address("127.0.0.1", taken.getsockname()[1]))

    asyncio.run(scene())
