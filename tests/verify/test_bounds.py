"""What a check may cost: time for big legal histories, and an end to those that would take for ever."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest

from raftkv.verify import check, linearizability
from raftkv.verify.history import Action, Delete, Get, Operation, Outcome, Put, Read, Result
from raftkv.verify.models import KeyValue, Register
from raftkv.verify.verdict import Answer
from tests.verify.machine import Machine
from tests.verify.notation import LOST, get, put
from tests.verify.test_generated import without_revisions

History = list[Operation]
MAX_CHECK_S = 2.0


def busy(
    clients: int, size: int, keys: int, *, lost: float = 0.0, pause_s: float = 0.0, seed: int = 1
) -> History:
    """A legal history of clients that always have one request under way."""
    random, machine = Random(seed), Machine()
    began = [(random.random(), client) for client in range(clients)]  # (call of its next request, client)
    planned: list[tuple[float, float, float, int, Action]] = []  # (effect, call, end, client, action)
    for number in range(size):
        began.sort()
        call, client = began.pop(0)
        key = b"k%d" % random.randrange(keys)
        value = b"%d" % number
        action = random.choice((Put(key, value), Put(key, value), Get(key), Get(key), Get(key), Delete(key)))
        effect = call + random.random()
        end = effect + random.random()
        planned.append((effect, call, end, client, action))
        began.append((end + random.random() * pause_s, client))
    made: History = []
    for _, call, end, client, action in sorted(planned, key=lambda plan: plan[0]):
        result: Result = machine.do(action)
        if random.random() < lost:
            made.append(Operation(f"c{client}", action, call, LOST, Outcome.UNKNOWN))
        else:
            made.append(Operation(f"c{client}", action, call, end, Outcome.OK, result))
    return made


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("lost", [0.0, 0.05, 0.3])
def test_2000_operations_of_50_clients_on_one_key(lost: float, seed: int) -> None:
    made = busy(50, 2000, 1, lost=lost, seed=seed)
    began = time.process_time()
    assert check(made)
    assert time.process_time() - began < MAX_CHECK_S


def test_without_revisions_a_tenth_of_that_at_a_time() -> None:
    made = [replace(o, result=without_revisions(o.result)) for o in busy(50, 2000, 1, pause_s=10)]
    for model in (KeyValue(), Register()):
        began = time.process_time()
        assert linearizability.check(made, model)
        assert time.process_time() - began < MAX_CHECK_S


def test_long_histories() -> None:
    """What is kept of an operation must not grow with the history: bits of all the others would."""
    made = busy(20, 20_000, 2, lost=0.01)
    began = time.process_time()
    assert check(made)
    assert time.process_time() - began < 5 * MAX_CHECK_S


def hopeless() -> History:
    """Forty concurrent puts, reads of some, and at last a read of a value that nobody wrote: an order must be
    sought among all their permutations.
    """
    puts = [put(f"c{n}", f"a={n}", n / 100, 10 + n / 100) for n in range(40)]
    return [*puts, get("r", "a=nobody", 20, 21)]


def test_the_deadline_makes_it_unknown() -> None:
    began = time.monotonic()
    verdict = linearizability.check(hopeless(), Register(), timeout_s=0.2)
    assert verdict.answer is Answer.UNKNOWN
    assert not verdict, "unknown is no pass"
    assert "time was up" in verdict.reason
    assert verdict.culprits
    assert time.monotonic() - began < 5


def test_memory_is_bounded() -> None:
    verdict = linearizability.check(hopeless(), Register(), cache_bytes=1 << 20)
    assert verdict.answer is Answer.UNKNOWN
    assert "memory" in verdict.reason


def test_no_state_is_tried_twice() -> None:
    """Twelve concurrent puts have 12! orders, but only 12 * 2^12 states."""
    made = [*hopeless()[:12], hopeless()[-1]]
    assert linearizability.check(made, Register(), timeout_s=20).answer is Answer.REFUSED


def test_the_first_bad_key_ends_it() -> None:
    bad = Operation("c", Get(b"b"), 0, 1, Outcome.OK, Read(None, None))
    made = [*hopeless(), bad, put("c", "b=1", 2, 3), replace(bad, call=4, end=5)]
    assert linearizability.check(made, Register(), timeout_s=60).answer is Answer.REFUSED
