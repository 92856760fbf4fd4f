"""A machine fed with a seeded mix of sound and broken entries, and all that can be seen of it as text.

Run as a program, it prints the dump: two processes with different hash seeds must print the same.
"""

from __future__ import annotations

import random
from typing import Any

import msgpack

from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId


def seen(machine: KvMachine) -> Any:
    """All that a client can see of ``machine``."""
    store = machine.store
    return (store.revision, store.page(b"", None, 1 << 30).items)


def random_command(rng: random.Random) -> bytes:
    key = bytes([rng.randrange(97, 110)]) * rng.randint(1, 3)
    condition = None
    if rng.random() < 0.5:
        revisions = tuple(rng.randrange(20) for _ in range(rng.randrange(3)))
        condition = Condition(rng.choice(list(ConditionKind)), revisions)
    match rng.randrange(4):
        case 0:
            return encode_delete(key, condition)
        case 1:
            junk = [rng.choice([1, 2, 3, "x", key, None, {key: 1}, [key], 2.5, True]) for _ in range(5)]
            return bytes(msgpack.packb(junk))
        case _:
            return encode_put(key, rng.randbytes(4), rng.choice([None, "text/plain"]), condition)


def dump(seed: int) -> str:
    rng = random.Random(seed)
    machine = KvMachine()
    lines = []
    for _ in range(300):
        batch = BatchId(f"n{rng.randint(1, 5)}", rng.randint(1, 3), rng.randint(1, 60), rng.randint(1, 30))
        commands = [random_command(rng) for _ in range(rng.randrange(5))]
        lines.append(repr(machine.apply(0, machine.seal(batch, commands))))
    return "\n".join([*lines, repr(seen(machine))])


if __name__ == "__main__":
    print(dump(7))
