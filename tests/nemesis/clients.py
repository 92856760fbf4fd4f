"""A process of clients that ask all nodes, one operation at a time each, and record every one.

``python -m tests.nemesis.clients --nodes HOST:PORT,... --history FILE ...``. A line of its standard input
says which nodes there are from now on. It goes on until that ends, finishes what is under way, and exits: 0,
or 1 with the reason if a node answered what it never should. Each client has its own connections and moves to
another node now and then, and after a failure.

Keys: a few that live all the time, and a few of an *epoch*, named anew every ``EPOCH_S``: so every key's
part of the history stays small enough for a search.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import TextIO

from raftkv.verify import write_history
from raftkv.verify.history import (
    Action,
    Condition,
    ConditionKind,
    Delete,
    Deleted,
    Get,
    List,
    Operation,
    Outcome,
    Put,
    Read,
    Refused,
    Written,
)
from tests.nemesis.asking import Connection, Unexpected, perform
from tests.nemesis.pace import pause

EPOCH_S = 15.0
EPOCH_KEYS = 8
LASTING_KEYS = 3
TIMEOUTS_MS = (400, 1_000, 2_000)
# Clients are other machines: they mustn't take the processors from nodes that start.
NICENESS = 5
AFTER_FAILURE_S = 0.05  # a dead node refuses at once: don't make a busy loop of it


class Client:
    def __init__(self, name: str, nodes: list[str], chance: random.Random, think_s: float) -> None:
        """``nodes``: HOST:PORT of each; others may change it."""
        self._name = name
        self._nodes = nodes
        self._chance = chance
        self._think_s = think_s
        self._connections: dict[str, Connection] = {}
        self._node = chance.choice(nodes)
        self._known: dict[bytes, int] = {}  # key -> the last mod_revision that this client was told
        self._writes = 0

    async def run(self, stopping: asyncio.Event, history: TextIO) -> None:
        while not stopping.is_set():
            action, timeout_ms = self.choose(time.monotonic()), self._chance.choice(TIMEOUTS_MS)
            operation = await perform(self._connection(), self._name, action, timeout_ms)
            history.writelines(write_history([operation]))
            self._learn(operation)
            failed = operation.outcome is not Outcome.OK
            if failed or self._chance.random() < 0.05:
                self._node = self._chance.choice(self._nodes)
            await pause(AFTER_FAILURE_S if failed else self._chance.uniform(0, 2 * self._think_s))
        for connection in self._connections.values():
            connection.close()

    def _connection(self) -> Connection:
        """To the node whose turn it is, which may be gone."""
        if self._node not in self._connections:
            host, port = self._node.rsplit(":", 1)
            self._connections[self._node] = Connection(host, int(port))
        return self._connections[self._node]

    def choose(self, now_s: float) -> Action:
        chance, key = self._chance, self._key(now_s)
        draw = chance.random()
        if draw < 0.30:
            return Put(key, self._value())
        if draw < 0.45:
            return Put(key, self._value(), self._condition(key))
        if draw < 0.49:
            return Delete(key)
        if draw < 0.55:
            return Delete(key, self._condition(key))
        if draw < 0.80:
            return Get(key)
        if draw < 0.94:
            return Get(key, stale=True)
        return List(
            key, None, chance.randint(1, 6), reverse=chance.random() < 0.3, stale=chance.random() < 0.4
        )

    def _key(self, now_s: float) -> bytes:
        if self._chance.random() < 0.1:
            return b"lasting/%d" % self._chance.randrange(LASTING_KEYS)
        return b"epoch/%06d/%d" % (now_s // EPOCH_S, self._chance.randrange(EPOCH_KEYS))

    def _value(self) -> bytes:
        """No other write has it."""
        self._writes += 1
        return f"{self._name}-{self._writes}".encode()

    def _condition(self, key: bytes) -> Condition:
        known = self._known.get(key, 0)
        draw = self._chance.random()
        if known and draw < 0.7:
            return Condition(ConditionKind.REVISION_IN, (known,))
        if known and draw < 0.8:
            return Condition(ConditionKind.REVISION_NOT_IN, (known,))
        return Condition(ConditionKind.ABSENT if draw < 0.9 else ConditionKind.EXISTS)

    def _learn(self, operation: Operation) -> None:
        key = operation.key
        if key is None or operation.outcome is not Outcome.OK or operation.stale:
            return
        match operation.result:
            case Written(int(revision)):
                self._known[key] = revision
            case Refused(int(revision)):
                self._known[key] = revision
            case Deleted():
                self._known[key] = 0
            case Read(item):
                self._known[key] = 0 if item is None else item.mod_revision or 0


async def play(options: argparse.Namespace) -> None:
    nodes = options.nodes.split(",")
    stopping = asyncio.Event()
    with options.history.open("w", encoding="utf-8") as history:
        async with asyncio.TaskGroup() as group:
            for number in range(options.clients):
                name = f"{options.name}.{number}"
                client = Client(name, nodes, random.Random(f"{options.seed} {name}"), options.think_ms / 1000)
                group.create_task(client.run(stopping, history))
            while told := await asyncio.to_thread(sys.stdin.readline):
                nodes[:] = told.strip().split(",")
            stopping.set()


def main() -> int:
    parser = argparse.ArgumentParser(prog="clients", description="Ask all nodes, and record every operation.")
    parser.add_argument("--nodes", required=True, help="HOST:PORT,... of all nodes at first")
    parser.add_argument("--history", required=True, type=Path, help="the file to write, a JSON object a line")
    parser.add_argument("--name", required=True, help="what this process's clients are called: NAME.0 ...")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--think-ms", type=float, default=15.0, help="between two operations, on average")
    os.nice(NICENESS)
    try:
        asyncio.run(play(parser.parse_args()))
    except ExceptionGroup as group:
        mistakes, others = group.split(Unexpected)
        if others is not None or mistakes is None:
            raise
        for mistake in mistakes.exceptions:
            sys.stderr.write(f"{mistake}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
