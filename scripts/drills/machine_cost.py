"""What a machine of many keys costs: memory, applying, the garbage collector, export, restore.

Keys of 16 bytes in no order, values of 64, batches of 50 commands. Times are this thread's on the CPU, in the
process alone; "longest" is of one batch, one chunk, one collection.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId

BATCH_COMMANDS = 50
PAGE_BYTES = 4096


class Clock:
    """Times calls of one kind."""

    def __init__(self) -> None:
        self.calls_s: list[float] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.thread_time()
        result = function(*arguments)
        self.calls_s.append(time.thread_time() - begin)
        return result

    def show(self, what: str, commands: int = 0) -> None:
        each = f"{1e6 * sum(self.calls_s) / commands:7.2f} us each, " if commands else ""
        total, longest = sum(self.calls_s), 1e3 * max(self.calls_s)
        print(f"{what:<44} {each}{total:6.2f} s in all, longest {longest:7.2f} ms", flush=True)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


class Bench:
    def __init__(self, keys: int) -> None:
        self.machine = KvMachine()
        self.random = random.Random(1)
        self.names = [b"%016x" % self.random.getrandbits(60) for _ in range(keys)]
        self.seq = 0

    def batch(self, names: Iterable[bytes]) -> bytes:
        self.seq += 1
        commands = [encode_put(name, self.random.randbytes(64)) for name in names]
        return self.machine.seal(BatchId("n1", 1, self.seq, self.seq), commands)

    def put(self, what: str, names: list[bytes]) -> None:
        clock = Clock()
        for at in range(0, len(names), BATCH_COMMANDS):
            clock.call(self.machine.apply, 0, self.batch(names[at : at + BATCH_COMMANDS]))
        clock.show(what, len(names))

    def collect(self, what: str) -> None:
        clock = Clock()
        for _ in range(3):
            clock.call(gc.collect)
        clock.show(what)

    def export(self, what: str, writes: int) -> list[bytes]:
        """All chunks; after each one, ``writes`` keys are put."""
        clock, chunks = Clock(), []
        export = self.machine.export()
        while (chunk := clock.call(next, export, None)) is not None:
            chunks.append(chunk)
            if writes:
                self.machine.apply(0, self.batch(self.random.choices(self.names, k=writes)))
        clock.show(what)
        return chunks

    def restore(self, what: str, chunks: list[bytes]) -> None:
        """Into the same machine, so that its former state is freed meanwhile and afterwards."""
        restore, feeding = self.machine.restorer(), Clock()
        for chunk in chunks:
            feeding.call(restore.feed, chunk)
        feeding.show(what)
        finishing = Clock()
        finishing.call(restore.finish)
        finishing.show("  finish")
        freeing = Clock()
        for _ in range(len(self.names) // 500):
            freeing.call(self.machine.apply, 0, self.batch([]))
        freeing.show("  empty batches, which free the former state")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000, help="default: 1000000")
    keys = parser.parse_args().keys
    bench = Bench(keys)
    gc.freeze()  # the names are not the machine's
    before = resident_bytes()
    bench.put("put, new keys", bench.names)
    print(f"resident: {(resident_bytes() - before) / keys:.0f} bytes a key")
    bench.collect("full collection")
    overwritten = bench.random.choices(bench.names, k=max(1, keys // 10))
    bench.put("put, keys that are there", overwritten)
    chunks = bench.export("export", writes=0)
    print(f"{len(chunks)} chunks, {sum(map(len, chunks)) / keys:.0f} bytes a key")
    bench.export("export, 50 puts after each chunk", writes=BATCH_COMMANDS)
    bench.restore("restore", chunks)


if __name__ == "__main__":
    main()
