"""What each condition asks of a key, in the machine that decides and in the handler that reads."""

from __future__ import annotations

import pytest

from raftkv.api.params import holds
from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import DeleteResult, PutResult, Refused
from raftkv.kv.session import BatchId

# The key is absent (0) or was put second (2): condition -> does it hold then?
TABLE = [
    (Condition(ConditionKind.EXISTS), {0: False, 2: True}),
    (Condition(ConditionKind.ABSENT), {0: True, 2: False}),
    (Condition(ConditionKind.REVISION_IN, ()), {0: False, 2: False}),
    (Condition(ConditionKind.REVISION_IN, (0,)), {0: True, 2: False}),
    (Condition(ConditionKind.REVISION_IN, (1,)), {0: False, 2: False}),
    (Condition(ConditionKind.REVISION_IN, (2,)), {0: False, 2: True}),
    (Condition(ConditionKind.REVISION_IN, (1, 2, 3)), {0: False, 2: True}),
    (Condition(ConditionKind.REVISION_NOT_IN, ()), {0: True, 2: True}),
    (Condition(ConditionKind.REVISION_NOT_IN, (0,)), {0: False, 2: True}),
    (Condition(ConditionKind.REVISION_NOT_IN, (2,)), {0: True, 2: False}),
    (Condition(ConditionKind.REVISION_NOT_IN, (1, 3)), {0: True, 2: True}),
]
CASES = [(condition, at, expected) for condition, row in TABLE for at, expected in row.items()]


def machine_with_key_at(revision: int) -> KvMachine:
    """``b"k"`` is at ``revision``, 0 or 2; the store is at 2 or 3 then."""
    machine = KvMachine()
    machine.store.put(b"other", b"", None)
    machine.store.put(b"k" if revision else b"other", b"old", None)
    return machine


def execute(machine: KvMachine, command: bytes) -> object:
    applied = machine.apply(0, machine.seal(BatchId("n1", 1, 1, 1), [command]))
    assert applied is not None
    assert applied.results is not None
    return applied.results[0]


@pytest.mark.parametrize(("condition", "at", "expected"), CASES)
def test_put(condition: Condition, at: int, expected: bool) -> None:
    machine = machine_with_key_at(at)
    before = machine.store.get(b"k")
    result = execute(machine, encode_put(b"k", b"new", None, condition))
    if expected:
        assert result == PutResult(3, 2 if at else 1)
        item = machine.store.get(b"k")
        assert item is not None
        assert item.value == b"new"
    else:
        assert result == Refused(at, 2)
        assert (machine.store.get(b"k"), machine.store.revision) == (before, 2)


@pytest.mark.parametrize(("condition", "at", "expected"), CASES)
def test_delete(condition: Condition, at: int, expected: bool) -> None:
    machine = machine_with_key_at(at)
    result = execute(machine, encode_delete(b"k", condition))
    if not expected:
        assert result == Refused(at, 2)
        assert machine.store.mod_revision(b"k") == at
    else:
        assert result == (DeleteResult(1, 3) if at else DeleteResult(0, 2))
        assert machine.store.get(b"k") is None


@pytest.mark.parametrize(("condition", "at", "expected"), CASES)
def test_the_handlers_that_read_agree(condition: Condition, at: int, expected: bool) -> None:
    assert holds(condition, at) is expected
