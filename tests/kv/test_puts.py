"""Puts that follow on each other are done together; nobody can tell."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest

from raftkv.kv import history
from raftkv.kv.commands import (
    Condition,
    ConditionKind,
    encode_batch_of,
    encode_compact,
    encode_delete,
    encode_increment,
    encode_put,
    encode_puts,
)
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import BatchResult, Malformed, PutResult
from raftkv.kv.session import BatchId
from tests.kv.driven import Driven, chunks_of

KEYS = (b"a", b"b", b"c", b"d")


def draw(random: Random) -> bytes:
    key, value = random.choice(KEYS), random.randbytes(random.choice([0, 20, 200]))
    others = [
        encode_put(key, value, "text/plain"),
        encode_put(key, value, None, Condition(ConditionKind.EXISTS)),
        encode_put(key, value, ttl_ms=60_000),
        encode_delete(key),
        encode_increment(key, 1),
        bytes(msgpack.packb([True, key, value, None, None])),
        bytes(msgpack.packb([1, "text", value, None, None])),
    ]
    return encode_put(key, value) if random.random() < 0.7 else random.choice(others)


def state_of(machine: KvMachine) -> Any:
    """All but the sessions, which tell how many batches there were."""
    return [chunk for chunk in chunks_of(machine)[1:] if msgpack.unpackb(chunk)[0] != "n1"], machine.checksum


@pytest.mark.parametrize("seed", range(8))
def test_together_or_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    monkeypatch.setattr(history, "BLOCK_BYTES", random.choice([1, 400, 256 << 10]))
    monkeypatch.setattr(history, "MAX_CHANGES", random.choice([10, 100_000]))
    together, alone = Driven(), Driven()
    for _ in range(40):
        commands = [draw(random) for _ in range(random.randint(1, 12))]
        if random.random() < 0.5:
            result = together.do(encode_batch_of(commands))
            assert isinstance(result, BatchResult)
            found = list(result.results)
        else:
            together.seq += 1
            data = together.machine.seal(BatchId("n1", 1, together.seq, together.seq), commands)
            applied = together.machine.apply(0, data)
            assert applied is not None
            assert applied.results is not None
            found = list(applied.results)
        assert found == [alone.do(command) for command in commands]
        assert state_of(together.machine) == state_of(alone.machine)
        if random.random() < 0.2:
            compact = encode_compact(random.randint(0, alone.machine.store.revision))
            assert together.do(compact) == alone.do(compact)


def test_what_stands_in_a_batch_must_be_a_command() -> None:
    driven = Driven()
    strange = [None, [], [[1]], [{}], [1.0, b"k", b"v", None, None], [True, b"k", b"v", None, None], b"put"]
    data = msgpack.packb([10, [*strange, [10, []], [3, 2], [1, b"k", b"v", None, None]]])
    *refused, done = driven.do(data).results
    assert all(isinstance(each, Malformed) for each in refused)
    assert [each.reason for each in refused[-2:]] == ["unknown command in a batch"] * 2
    assert done == PutResult(1, 1)


def test_many_are_encoded_as_each_would_be() -> None:
    puts = [(b"a", b"1"), (b"\xff", b""), (b"a", bytes(70_000))]
    assert encode_puts(puts) == encode_batch_of([encode_put(key, value) for key, value in puts])
