"""The simulator's second machine: it says what the real one says, and sees where that differs."""

from __future__ import annotations

import pytest

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.commands import (
    Compare,
    Relation,
    Target,
    encode_batch_of,
    encode_compact,
    encode_delete,
    encode_delete_range,
    encode_get,
    encode_grant,
    encode_increment,
    encode_keep_alive,
    encode_level,
    encode_once,
    encode_put,
    encode_range,
    encode_revoke,
    encode_tick,
    encode_txn,
)
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.sim.reference import Reference

COUNT = encode_once("token", b"print", encode_increment(b"n", 2))
HOLDS = [
    Compare(b"n", Target.VALUE, Relation.EQUAL, b"2"),
    Compare(b"", Target.VERSION, Relation.GREATER, 0, b""),
]
RANGE = encode_range(b"a", b"n", 2, reverse=True)
MORTAL = encode_put(b"e", b"5", ttl_ms=500)
INVALID = encode_put(b"g", b"7", lease=77)
STEPS = (  # (cluster time, command): each changes something
    (0, encode_put(b"a", b"0")),
    (5, encode_level(2)),
    (10, encode_put(b"a", b"1", ttl_ms=200)),
    (20, encode_grant(300, 9)),
    (30, encode_put(b"b", b"2", lease=9)),
    (40, COUNT),
    (50, COUNT),
    (60, encode_once("token", b"other", encode_increment(b"n", 2))),
    (70, encode_txn(HOLDS, [encode_put(b"c", b"3"), encode_increment(b"n", 1), RANGE], [encode_get(b"a")])),
    (80, encode_txn([], [MORTAL, encode_increment(b"c", 1), INVALID], [])),
    (90, encode_txn([], [MORTAL, encode_put(b"e", b"x"), encode_delete(b"a"), encode_put(b"a", b"y")], [])),
    (100, encode_batch_of([encode_put(b"f", b"6"), INVALID, encode_delete(b"c")])),
    (110, encode_keep_alive(9)),
    (120, encode_compact(4)),
    (210, encode_tick()),  # the first lease ends
    (220, encode_put(b"h", b"8", ttl_ms=500)),
    (230, encode_put(b"h", b"9")),  # and with its key, that of its own
    (240, encode_revoke(9)),
    (250, encode_delete_range(b"", None)),
)  # fmt: skip


def played(steps: int) -> tuple[Reference, KvMachine]:
    """A reference that knows all of ``STEPS``, and a machine that has done the first of them."""
    reference, whole, machine = Reference(), KvMachine(), KvMachine()
    for position, (time_ms, command) in enumerate(STEPS):
        data = whole.seal(BatchId("n1", 1, position + 1, position + 1), [command])
        reference.applied(position, time_ms, data, whole.apply(time_ms, data))
        if position < steps:
            machine.apply(time_ms, data)
    return reference, machine


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_it_says_what_the_machine_says(steps: int) -> None:
    reference, machine = played(steps)
    reference.check_machine("n1", steps, machine)
    reference.check_image("n1", steps, machine.export())
    if steps < len(STEPS):
        with pytest.raises(InvariantBroken, match="another machine"):
            reference.check_image("n1", steps + 1, machine.export())


@pytest.mark.parametrize(
    ("steps", "instead", "what"),
    [
        (2, encode_put(b"a", b"1", ttl_ms=201), "leases"),
        (5, encode_once("token", b"other", encode_increment(b"n", 2)), "tokens"),
        (13, encode_compact(3), "numbers"),
        (13, encode_compact(5), "numbers"),
    ],
)
def test_what_differs_is_seen(steps: int, instead: bytes, what: str) -> None:
    reference, machine = played(steps)
    name = BatchId("n1", 1, steps + 1, steps + 1)
    machine.apply(STEPS[steps][0], machine.seal(name, [instead]))
    with pytest.raises(InvariantBroken, match=f"its {what} are"):
        reference.check_image("n1", steps + 1, machine.export())


def test_a_change_that_differs_is_seen_at_once() -> None:
    reference, machine = played(4)
    machine.apply(30, machine.seal(BatchId("n1", 1, 5, 5), [encode_put(b"b", b"x", lease=9)]))
    with pytest.raises(InvariantBroken, match="checksum"):
        reference.check_machine("n1", 5, machine)


def test_time_that_goes_back_is_seen() -> None:
    reference, machine = Reference(), KvMachine()
    first, second = (machine.seal(BatchId("n1", 1, seq, seq), [encode_delete(b"k")]) for seq in (1, 2))
    reference.applied(0, 10, first, machine.apply(10, first))
    with pytest.raises(InvariantBroken, match="goes back"):
        reference.applied(1, 9, second, machine.apply(9, second))
