"""An open-loop load: requests leave at a fixed rate, whether or not earlier ones have been answered.

wrk sends the next request when the last one is answered: while a store stalls it asks nothing, and one slow
answer stands for all that clients would have asked meanwhile. Here each request is due at a time of its own,
evenly spaced, and its latency counts from then: waiting for a free connection is in it, and so is the
lateness of this program, a millisecond at most where it gets its turn on a processor.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter
from typing import cast

from cases import Run
from harness import POLL_S, DrillError

CONNECTIONS = 256  # open from the start; each carries one request at a time
ANSWER_DEADLINE_S = 10.0  # for what is under way when the load ends
_TICK_S = 0.001
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Load:
    """Who is free to ask, what is due, and how long the answers took."""

    def __init__(self, request: Callable[[], bytes]) -> None:
        """``request`` makes a whole one, HTTP/1.1."""
        self.answered_ms: list[float] = []
        self.refused = 0  # of those
        self._request = request
        self._due_s: deque[float] = deque()  # of ``perf_counter``
        self._free: deque[Connection] = deque()

    def due(self, at_s: float) -> None:
        self._due_s.append(at_s)
        self._ask()

    def free(self, connection: Connection) -> None:
        self._free.append(connection)
        self._ask()

    def unanswered(self, connections: int) -> int:
        """Of so many connections: what they were asked and what waits for them."""
        return len(self._due_s) + connections - len(self._free)

    def _ask(self) -> None:
        while self._due_s and self._free:
            self._free.popleft().ask(self._due_s.popleft(), self._request())


class Connection(asyncio.Protocol):
    """NB: one that is lost is never free again, so that what it was asked stays unanswered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's isn't one by its class
        self._load.free(self)

    def ask(self, due_s: float, request: bytes) -> None:
        self._due_s = due_s
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self._received = b""
        self._load.answered_ms.append((perf_counter() - self._due_s) * 1e3)
        self._load.refused += head.split(b" ", 2)[1][:1] != b"2"
        self._load.free(self)


async def paced(
    address: str, request: Callable[[], bytes], per_second: float, meanwhile: Coroutine[None, None, None]
) -> Run:
    """Requests to HOST:PORT for as long as ``meanwhile`` takes. Raises ``DrillError`` if none is answered."""
    host, _, port = address.partition(":")
    loop, load = asyncio.get_running_loop(), Load(request)
    opening = (loop.create_connection(lambda: Connection(load), host, int(port)) for _ in range(CONNECTIONS))
    ends = [await each for each in opening]
    lasting = asyncio.create_task(meanwhile)
    began_s, asked = perf_counter(), 0
    while not lasting.done():
        while asked < (perf_counter() - began_s) * per_second:
            load.due(began_s + asked / per_second)
            asked += 1
        await asyncio.sleep(_TICK_S)
    await lasting
    seconds = perf_counter() - began_s
    for _ in range(int(ANSWER_DEADLINE_S / POLL_S)):
        if not load.unanswered(CONNECTIONS):
            break
        await asyncio.sleep(POLL_S)
    for transport, _ in ends:
        transport.abort()
    times_ms = load.answered_ms
    p50_ms, p99_ms = percentile(times_ms, 50), percentile(times_ms, 99)
    return Run(len(times_ms) / seconds, p50_ms, p99_ms, load.refused + load.unanswered(CONNECTIONS))


def percentile(values: Sequence[float], percent: int) -> float:
    """So many percent are at most this. Raises ``DrillError`` if there is none."""
    if not values:
        raise DrillError("no request of the paced load was answered")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
