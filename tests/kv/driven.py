"""A machine that is driven command by command, and what it is as bytes."""

from __future__ import annotations

from typing import Any

from raftkv.kv.commands import (
    encode_level,
)
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId


class Driven:
    """A machine at level 2, one command a batch."""

    def __init__(self) -> None:
        self.machine = KvMachine()
        self.seq = 0
        self.time_ms = 0
        self.log: list[tuple[int, bytes]] = []
        self.do(encode_level(2))

    def do(self, command: bytes) -> Any:
        self.seq += 1
        data = self.machine.seal(BatchId("n1", 1, self.seq, self.seq), [command])
        self.log.append((self.time_ms, data))
        applied = self.machine.apply(self.time_ms, data)
        assert applied is not None
        assert applied.results is not None
        return applied.results[0]


def chunks_of(machine: KvMachine) -> list[bytes]:
    return [chunk for chunk in machine.export() if chunk]


def restored(machine: KvMachine) -> KvMachine:
    copy = KvMachine()
    restoring = copy.restorer()
    for chunk in chunks_of(machine):
        restoring.feed(chunk)
    return restoring.finish()
