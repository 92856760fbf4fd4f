"""A process of all workloads beyond single keys: transactions, leases, locks, watchers, levels of
consistency.

``python -m tests.nemesis.workloads --nodes HOST:PORT,... --notes FILE --history FILE ...``. It is told of
nodes, and ends, as ``clients`` do; at its end it puts ``watchers.LAST``, and waits until every watcher has
seen it. What they did is judged by ``complaints``, and counted by ``figures``: a run in which one of
``REQUIRED`` never happened has shown nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from raftkv.verify import write_history
from raftkv.verify.history import Operation
from tests.nemesis import leases, ledger, levels, locks, watchers
from tests.nemesis.notes import Moments, Note, write_note
from tests.nemesis.record import Record
from tests.nemesis.roaming import Worker, hear_of_nodes, run_process

WATCHERS_END_WITHIN_S = 10.0
CLERKS, TENANTS, CONTENDERS, READERS = 4, 3, 4, 4
MAX_TOLD = 5

JUDGED = {
    "transactions": ledger.judge,
    "leases": leases.judge,
    "locks": locks.judge,
    "levels": levels.judge,
    "watches": watchers.judge,
}
REQUIRED = (
    "transactions done",
    "transactions refused",
    "transactions repeated",
    "totals read",
    "events watched",
    "watches resumed elsewhere",
    "leases granted",
    "leases kept alive",
    "keys with a ttl",
    "locks granted",
    "locks granted by lease",
    "fenced writes",
    "fenced writes refused",
    "lease reads",
    "bounded reads",
    "stale reads",
    "session reads",
)


class Closer(Worker):
    """Puts the last key of all."""

    async def run(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        while not (await self.ask("last", "PUT", f"/v1/kv/{watchers.LAST.replace('/', '%2F')}", {})).done:
            await self.go_on(failed=True, think_s=0.0)
        self.close()


async def play(options: argparse.Namespace) -> None:
    nodes = options.nodes.split(",")
    stopping = asyncio.Event()
    with (
        options.notes.open("w", encoding="utf-8") as notes,
        options.history.open("w", encoding="utf-8") as history,
    ):

        def tell(note: Note) -> None:
            notes.write(write_note(note))

        def record(operation: Operation) -> None:
            history.writelines(write_history([operation]))

        def chance(name: str) -> random.Random:
            return random.Random(f"{options.seed} {name}")

        async with asyncio.TaskGroup() as watching:
            for each in watchers.RANGES:
                name = f"watcher.{each}"
                watching.create_task(watch(watchers.Watcher(name, nodes, chance(name), tell), stopping))
            async with asyncio.TaskGroup() as working:
                for kind, count in (
                    (ledger.Clerk, CLERKS),
                    (leases.Tenant, TENANTS),
                    (locks.Contender, CONTENDERS),
                ):
                    for number in range(count):
                        name = f"{kind.__name__.lower()}.{number}"
                        working.create_task(kind(name, nodes, chance(name), tell).run(stopping))
                session = levels.Session()
                for number in range(READERS):
                    name = f"reader.{number}"
                    reader = levels.Reader(name, nodes, chance(name), tell, record=record, session=session)
                    working.create_task(reader.run(stopping))
                await hear_of_nodes(nodes, stopping)
            await Closer("closer", nodes, chance("closer"), tell).run(stopping)


async def watch(watcher: watchers.Watcher, stopping: asyncio.Event) -> None:
    """Until it has seen all; or has had its time for that, and then the judge says what it lacks."""
    running = asyncio.create_task(watcher.run(stopping))
    ending = asyncio.create_task(stopping.wait())
    await asyncio.wait((running, ending), return_when=asyncio.FIRST_COMPLETED)
    with suppress(TimeoutError):
        await asyncio.wait_for(running, WATCHERS_END_WITHIN_S)
    ending.cancel()


def complaints(notes: Sequence[Note], record: Record, moments: Moments) -> dict[str, list[str]]:
    """By workload, what is wrong, in words."""
    return {name: judge(notes, record, moments)[:MAX_TOLD] for name, judge in JUDGED.items()}


def figures(notes: Sequence[Note]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for each in (ledger, leases, locks, levels, watchers):
        counted.update(each.figures(notes))
    return counted


def not_shown(counted: Counter[str]) -> list[str]:
    """Of a whole run, what never happened."""
    return [f"nothing was shown: {what}: 0" for what in REQUIRED if not counted[what]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="workloads", description="Transactions, leases, locks, watches, levels."
    )
    parser.add_argument("--nodes", required=True, help="HOST:PORT,... of all nodes at first")
    parser.add_argument("--notes", required=True, type=Path, help="the file to write, a JSON object a line")
    parser.add_argument("--history", required=True, type=Path, help="the same, of single operations")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return run_process(lambda: play(options))


if __name__ == "__main__":
    sys.exit(main())
