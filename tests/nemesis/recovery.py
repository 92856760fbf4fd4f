"""How soon the cluster answers once all is healed: a write and then a linearizable read through every node.

Two bounds of one length: for the cluster, by whichever node is first, from when all faults are undone; for
each node, from when its process serves too, and those of a majority. How long the machine takes to start the
last process is told apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from raftkv.verify.history import Get, History, Outcome, Put
from tests.cluster.harness import Node
from tests.nemesis.asking import Connection, Lost, NotSent, perform
from tests.nemesis.pace import pause

ANSWERS_WITHIN_S = 5.0
GIVEN_UP_AFTER_S = 30.0  # of serving, and then of answering
PROBE_TIMEOUT_MS = 1_000
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds. ``cluster_s``: from healing to the first node's answers. The others are node by node;
    ``starts_s``: from healing until its process served.
    """

    cluster_s: float
    starts_s: tuple[float, ...]
    answers_s: tuple[float, ...]
    names: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return (
            max(self.cluster_s, *self.answers_s) <= ANSWERS_WITHIN_S and max(self.starts_s) < GIVEN_UP_AFTER_S
        )

    def __str__(self) -> str:
        each = zip(self.names, self.starts_s, self.answers_s, strict=True)
        nodes = ", ".join(f"{name} {answer:.2f} s (start {start:.2f} s)" for name, start, answer in each)
        return f"first {self.cluster_s:.2f} s; {nodes}"


def counted(served_s: Sequence[float], answered_s: Sequence[float], names: Sequence[str]) -> Recovery:
    """From when each of ``names`` served and answered, in seconds since all faults were undone."""
    majority_s = sorted(served_s)[len(served_s) // 2]
    answers = (
        answered - max(served, majority_s) for served, answered in zip(served_s, answered_s, strict=True)
    )
    answers_s = tuple(max(0.0, answer) for answer in answers)
    return Recovery(min(answered_s), tuple(served_s), answers_s, tuple(names))


async def recovered(nodes: Sequence[Node], probes: History) -> Recovery:
    """To be called when all faults are undone. What it asks is added to ``probes``."""
    times = await asyncio.gather(*(_served_and_answered(node, probes) for node in nodes))
    served_s, answered_s = zip(*times, strict=True)
    return counted(served_s, answered_s, [node.name for node in nodes])


async def _served_and_answered(node: Node, probes: History) -> tuple[float, float]:
    """In seconds from now; or when each was given up."""
    began = time.monotonic()
    connection = Connection(node.host, node.port)
    while time.monotonic() < began + GIVEN_UP_AFTER_S:
        try:
            await connection.ask("GET", "/livez", PROBE_TIMEOUT_MS / 1000, {})
            break
        except (NotSent, Lost):
            await pause(POLL_S)
    served = time.monotonic()
    key = b"probe/" + node.name.encode()
    for wanted in (Put, Get):
        while time.monotonic() < served + GIVEN_UP_AFTER_S:
            action = Get(key) if wanted is Get else Put(key, b"%d" % time.monotonic_ns())
            operation = await perform(connection, f"probe-{node.name}", action, PROBE_TIMEOUT_MS)
            probes.append(operation)
            if operation.outcome is Outcome.OK:
                break
            await pause(POLL_S)
    connection.close()
    return served - began, time.monotonic() - began
