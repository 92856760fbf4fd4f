"""One who asks all nodes, one after the other, with connections of its own."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlencode

from raftkv.verify.history import Outcome
from tests.nemesis.asking import PATIENCE_S, Connection, Lost, NotSent, Unexpected
from tests.nemesis.notes import Note
from tests.nemesis.pace import pause

# Clients are other machines: they mustn't take the processors from nodes that start.
NICENESS = 5
MOVES = 0.05
AFTER_FAILURE_S = 0.05  # a dead node refuses at once: don't make a busy loop of it

Tell = Callable[[Note], None]
"""Write it down."""


class Roamer:
    """Moves to another node now and then, and after a failure."""

    def __init__(self, name: str, nodes: list[str], chance: random.Random) -> None:
        """``nodes``: HOST:PORT of each; others may change it."""
        self.name = name
        self.chance = chance
        self._nodes = nodes
        self._connections: dict[str, Connection] = {}
        self.node = chance.choice(nodes)

    def connection(self) -> Connection:
        """To the node whose turn it is, which may be gone."""
        if self.node not in self._connections:
            host, port = self.node.rsplit(":", 1)
            self._connections[self.node] = Connection(host, int(port))
        return self._connections[self.node]

    def move(self) -> None:
        self.node = self.chance.choice(self._nodes)

    async def go_on(self, *, failed: bool, think_s: float) -> None:
        """Think, and perhaps move."""
        if failed or self.chance.random() < MOVES:
            self.move()
        await pause(AFTER_FAILURE_S if failed else self.chance.uniform(0, 2 * think_s))

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Worker(Roamer):
    """A client of a workload: what it asks goes into notes."""

    # The statuses that an error may have beside those that any request may end with.
    errors: tuple[int, ...] = ()

    def __init__(self, name: str, nodes: list[str], chance: random.Random, tell: Tell) -> None:
        super().__init__(name, nodes, chance)
        self.tell = tell

    async def run(self, stopping: asyncio.Event) -> None:
        raise NotImplementedError

    async def ask(
        self,
        what: str,
        method: str,
        path: str,
        document: dict[str, Any] | None = None,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        asked: dict[str, Any] | None = None,
        timeout_ms: int = 1_000,
        wait_ms: int = 0,
    ) -> Note:
        """Once. An answer that isn't one of the interface's is ``Unexpected``."""
        target = f"{path}?{urlencode({**(query or {}), 'timeout': f'{timeout_ms}ms'})}"
        body = b"" if document is None else json.dumps(document).encode()
        asked = asked or {}
        patience_s = (timeout_ms + wait_ms) / 1000 + PATIENCE_S
        call = time.monotonic()
        try:
            answer = await self.connection().ask(method, target, patience_s, headers or {}, body)
        except (NotSent, Lost) as error:
            outcome = Outcome.FAIL if isinstance(error, NotSent) else Outcome.UNKNOWN
            note = Note(self.name, what, call, math.inf, outcome, asked=asked)
        else:
            told = answer.json
            outcome = Outcome.OK
            if answer.status in (429, 503, 504):
                outcome = Outcome.FAIL if told["outcome"] == "not_applied" else Outcome.UNKNOWN
            elif answer.status >= 300 and answer.status not in self.errors:
                raise Unexpected(f"{method} {target} {body!r}: {answer.status} {answer.body[:300]!r}")
            end = time.monotonic() if outcome is not Outcome.UNKNOWN else math.inf
            note = Note(self.name, what, call, end, outcome, answer.status, asked, told)
        self.tell(note)
        return note


async def hear_of_nodes(nodes: list[str], stopping: asyncio.Event) -> None:
    """A line of standard input says which nodes there are from now on; its end, to stop."""
    while told := await asyncio.to_thread(sys.stdin.readline):
        nodes[:] = told.strip().split(",")
    stopping.set()


def run_process(play: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """A process of clients, to its exit code: 1, with the reason, if a node answered what it never should."""
    os.nice(NICENESS)
    try:
        asyncio.run(play())
    except ExceptionGroup as group:
        mistakes, others = group.split(Unexpected)
        if others is not None or mistakes is None:
            raise
        sys.stderr.writelines(f"{mistake}\n" for mistake in leaves(mistakes))
        return 1
    return 0


def leaves(error: Exception) -> Iterator[Exception]:
    """What a group is made of; itself, if it is none."""
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
