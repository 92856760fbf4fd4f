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
from tests.nemesis.asking import perform
from tests.nemesis.notes import OWN_KEYS
from tests.nemesis.roaming import Roamer, hear_of_nodes, run_process

EPOCH_S = 15.0
EPOCH_KEYS = 8
LASTING_KEYS = 3
TIMEOUTS_MS = (400, 1_000, 2_000)


class Client(Roamer):
    def __init__(self, name: str, nodes: list[str], chance: random.Random, think_s: float) -> None:
        super().__init__(name, nodes, chance)
        self._think_s = think_s
        self._known: dict[bytes, int] = {}  # key -> the last mod_revision that this client was told
        self._writes = 0

    async def run(self, stopping: asyncio.Event, history: TextIO) -> None:
        while not stopping.is_set():
            action, timeout_ms = self.choose(time.monotonic()), self.chance.choice(TIMEOUTS_MS)
            operation = await perform(self.connection(), self.name, action, timeout_ms)
            history.writelines(write_history([operation]))
            self._learn(operation)
            await self.go_on(failed=operation.outcome is not Outcome.OK, think_s=self._think_s)
        self.close()

    def choose(self, now_s: float) -> Action:
        chance, key = self.chance, key_of(self.chance, now_s)
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
        reverse, stale = chance.random() < 0.3, chance.random() < 0.4
        return List(key, OWN_KEYS, chance.randint(1, 6), reverse=reverse, stale=stale)

    def _value(self) -> bytes:
        """No other write has it."""
        self._writes += 1
        return f"{self.name}-{self._writes}".encode()

    def _condition(self, key: bytes) -> Condition:
        known = self._known.get(key, 0)
        draw = self.chance.random()
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


def key_of(chance: random.Random, now_s: float) -> bytes:
    if chance.random() < 0.1:
        return b"lasting/%d" % chance.randrange(LASTING_KEYS)
    return b"epoch/%06d/%d" % (now_s // EPOCH_S, chance.randrange(EPOCH_KEYS))


async def play(options: argparse.Namespace) -> None:
    nodes = options.nodes.split(",")
    stopping = asyncio.Event()
    with options.history.open("w", encoding="utf-8") as history:
        async with asyncio.TaskGroup() as group:
            for number in range(options.clients):
                name = f"{options.name}.{number}"
                client = Client(name, nodes, random.Random(f"{options.seed} {name}"), options.think_ms / 1000)
                group.create_task(client.run(stopping, history))
            await hear_of_nodes(nodes, stopping)


def main() -> int:
    parser = argparse.ArgumentParser(prog="clients", description="Ask all nodes, and record every operation.")
    parser.add_argument("--nodes", required=True, help="HOST:PORT,... of all nodes at first")
    parser.add_argument("--history", required=True, type=Path, help="the file to write, a JSON object a line")
    parser.add_argument("--name", required=True, help="what this process's clients are called: NAME.0 ...")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--think-ms", type=float, default=15.0, help="between two operations, on average")
    options = parser.parse_args()
    return run_process(lambda: play(options))


if __name__ == "__main__":
    sys.exit(main())
