"""What nothing on this machine can be faster than: a bare aiohttp handler, fdatasync, a WebSocket round trip.

Measured in the same run as the stores: a machine's speed wanders. The servers are processes of their own, on
uvloop where there is one, as raftkv's nodes are.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from harness import DrillError, free_ports

try:
    import uvloop
except ImportError:
    run = asyncio.run
else:
    run = uvloop.run

SYNCS = 1_000
SYNCED_BYTES = 512
TURNS = 2_000
_ANSWER = b"x" * 64


@dataclass(frozen=True, slots=True)
class Floors:
    """Medians, in milliseconds."""

    fdatasync_ms: float
    websocket_ms: float
    http_ms: float  # a request on one connection to a bare handler

    @staticmethod
    def middle(several: Sequence[Floors]) -> Floors:
        return Floors(
            statistics.median(each.fdatasync_ms for each in several),
            statistics.median(each.websocket_ms for each in several),
            statistics.median(each.http_ms for each in several),
        )


def fdatasync_ms(directory: Path) -> float:
    """One append of half a kilobyte and its fdatasync, on the disk that the stores use."""
    path = directory / "floor"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            began_s = time.perf_counter()
            file.write(bytes(SYNCED_BYTES))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began_s)
    path.unlink()
    return statistics.median(times) * 1e3


async def websocket_ms(port: int) -> float:
    """There and back, 100 bytes, one at a time."""
    times = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/ws") as socket,
    ):
        for _ in range(TURNS):
            began_s = time.perf_counter()
            await socket.send_bytes(bytes(100))
            await socket.receive()
            times.append(time.perf_counter() - began_s)
    return statistics.median(times) * 1e3


@asynccontextmanager
async def running_bare() -> AsyncIterator[int]:
    """A bare server's port: it answers each request with 64 bytes, and echoes at /ws."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(port))
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise DrillError("the bare server did not start") from None
                await asyncio.sleep(0.02)
        writer.close()
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    if request.path != "/ws":
        return web.Response(body=_ANSWER)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_bytes(message.data)
    return socket


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(web.Server(_answer, access_log=None), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    run(_serve(int(sys.argv[1])))
