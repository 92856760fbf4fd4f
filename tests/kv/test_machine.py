"""The machine is total and deterministic: whatever an entry holds, no exception, the same on every node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.kv.commands import encode_put
from raftkv.kv.machine import Applied, KvMachine
from raftkv.kv.results import Malformed, PutResult
from raftkv.kv.session import BatchId
from tests.kv.dump import dump, seen

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=3))
    | st.sampled_from([0, 1, 2, 3, 4, 5, True, 1.0, "n1", b"k"])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)
# Nearly commands: right in most places, so that the checks behind the first are reached, too.
CONDITIONS = VALUES | st.tuples(st.sampled_from([0, 1, 2, 3, 4, 5, True]), st.lists(SCALARS, max_size=3))
COMMANDS = (
    VALUES
    | st.tuples(st.just(1), st.just(b"k") | VALUES, st.just(b"v") | VALUES, st.none() | VALUES, CONDITIONS)
    | st.tuples(st.just(2), st.just(b"k") | VALUES, CONDITIONS)
)


def started() -> KvMachine:
    """A machine with ``b"k"`` at revision 1, put by the first batch of ``n1``."""
    machine = KvMachine()
    assert apply(machine, 1, encode_put(b"k", b"first")) == [PutResult(1, 1)]
    return machine


def apply(machine: KvMachine, seq: int, *commands: bytes) -> Any:
    applied = machine.apply(0, machine.seal(BatchId("n1", 1, seq, 1), commands))
    assert applied is not None
    return applied.results


def check_agreement(data: bytes) -> None:
    """Two machines make the same of ``data``, at any time; nothing, if it is no batch; and both go on."""
    one, other = started(), started()
    before = seen(one)
    result = one.apply(1, data)
    assert result == other.apply(2, data)
    assert seen(one) == seen(other)
    if result is None:
        assert seen(one) == before
    assert apply(one, 99, encode_put(b"z", b"")) == apply(other, 99, encode_put(b"z", b""))


@given(st.binary(max_size=60))
def test_random_bytes(data: bytes) -> None:
    check_agreement(data)


@given(VALUES)
def test_random_msgpack(value: Any) -> None:
    check_agreement(msgpack.packb(value))


@given(st.tuples(st.just(1) | SCALARS, st.just("n1") | SCALARS, SCALARS, SCALARS, SCALARS, VALUES))
def test_random_batches(value: Any) -> None:
    check_agreement(msgpack.packb(value))


@given(st.lists(COMMANDS, max_size=3), st.binary(max_size=3))
def test_random_commands(commands: list[Any], junk: bytes) -> None:
    data = msgpack.packb([1, "n1", 1, 2, 1, commands])
    check_agreement(data)
    check_agreement(data + junk)


@given(st.lists(COMMANDS, min_size=1, max_size=4))
def test_a_malformed_command_changes_nothing_and_spoils_no_other(commands: list[Any]) -> None:
    machine = started()
    for command in commands:
        seq = machine.store.revision + 1
        before = seen(machine)
        batch = BatchId("n2", seq, seq, 1)
        applied = machine.apply(0, machine.seal(batch, [msgpack.packb(command), encode_put(b"s", b"")]))
        assert applied is not None
        assert applied.results is not None
        result, sound = applied.results
        if isinstance(result, Malformed):
            assert sound == PutResult(before[0] + 1, sound.version)
        assert isinstance(sound, PutResult)


BROKEN: list[Any] = [
    [],
    [1],
    [1, b"k", b"v", None],
    [1, b"k", b"v", None, None, None],
    [1, 7, b"v", None, None],
    [1, "k", b"v", None, None],
    [1, b"k", "v", None, None],
    [1, b"k", None, None, None],
    [1, b"k", b"v", b"text/plain", None],
    [1, b"k", b"v", 1, None],
    [True, b"k", b"v", None, None],
    [1.0, b"k", b"v", None, None],
    [0, b"k", b"v", None, None],
    [-1, b"k", None],
    [2**64 - 1, b"k", None],
    [2, b"k"],
    [2, b"k", b"v", None, None],
    [2, None, None],
    [3, b"k", None],
    {"1": 2},
    "put",
    None,
    msgpack.ExtType(2, b"k"),
    *(
        [2, b"k", condition]
        for condition in (
            True,
            0,
            b"",
            [],
            [2],
            [1, None],
            [1, {}],
            [2, 1],
            [2, [True]],
            [2, [1.0]],
            [2, [None]],
            [2, [[1]]],
            [2, ["1"]],
            [True, []],
            [1.0, []],
            [0, []],
            [5, []],
            [-1, [1]],
            [2**63, [1]],
            [2, [1], 0],
            msgpack.ExtType(1, b""),
        )
    ),
]


@pytest.mark.parametrize("command", BROKEN, ids=repr)
def test_malformed(command: Any) -> None:
    machine = started()
    before = seen(machine)
    (result,) = apply(machine, 2, msgpack.packb(command))
    assert isinstance(result, Malformed)
    assert seen(machine) == before


def test_numbers_of_any_size_are_revisions_that_no_key_has() -> None:
    machine = started()
    for i, revision in enumerate((-(2**63), -1, 2**63, 2**64 - 1)):
        (refused,) = apply(machine, 2 + i, msgpack.packb([2, b"k", [2, [revision]]]))
        assert refused.mod_revision == 1


def test_deep_nesting_is_no_batch() -> None:
    for depth in (500, 5_000, 100_000):
        check_agreement(b"\x91" * depth + b"\xc0")
        check_agreement(b"\x96\x01\xa2n1\x01\x02\x01" + b"\x91" * depth + b"\xc0")


def test_lengths_that_promise_what_is_not_there_take_no_memory() -> None:
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
        check_agreement(head + b"\xff\xff\xff\xff")
        check_agreement(b"\x96\x01\xa2n1\x01\x02\x01" + head + b"\xff\xff\xff\xff")


def test_a_batch_that_comes_again_is_named_but_not_applied() -> None:
    machine = started()
    data = machine.seal(BatchId("n1", 1, 2, 1), [encode_put(b"k", b"second")])
    assert machine.apply(0, data) == Applied(BatchId("n1", 1, 2, 1), [PutResult(2, 2)])
    assert machine.apply(5, data) == Applied(BatchId("n1", 1, 2, 1), None)
    assert machine.store.revision == 2


def test_hash_seeds_decide_nothing() -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.kv.dump"],
            env={**environment, "PYTHONHASHSEED": seed},
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=30)[0] for process in processes)
    assert first == second
    assert first.rstrip("\n") == dump(7)
    assert "Malformed" in first
    assert "Refused" in first
