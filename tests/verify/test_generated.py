"""Histories made from the real machine with random overlap must pass; with one answer changed, the checkers
must agree with a search through all permutations, which is slow, short and plainly right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, permutations
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.verify import check, linearizability, revisions
from raftkv.verify.history import (
    Action,
    Cas,
    Condition,
    ConditionKind,
    Delete,
    Deleted,
    Get,
    Item,
    List,
    Listed,
    Operation,
    Outcome,
    Put,
    Read,
    Refused,
    Result,
    Written,
)
from raftkv.verify.models import Model, Register
from tests.verify.machine import Machine
from tests.verify.notation import LOST

History = list[Operation]
CHECKED = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


# -- making them -------------------------------------------------------------------------------------------


def any_action(random: Random, keys: int, revision: int) -> Action:
    key = b"k%d" % random.randrange(keys)
    condition = None
    if random.random() < 0.4:
        kind = random.choice(list(ConditionKind))
        wanted = tuple(random.randrange(revision + 2) for _ in range(random.randint(1, 2)))
        condition = Condition(kind, wanted if "revision" in kind else ())
    match random.randrange(10):
        case 0 | 1 | 2 | 3:
            return Put(key, b"%d" % random.randrange(6), condition)
        case 4 | 5:
            return Delete(key, condition)
        case 6 | 7 | 8:
            return Get(key)
    return List(limit=random.randint(1, 3), reverse=random.random() < 0.5)


def history(random: Random, size: int, *, keys: int, lost: float, overlap: float) -> History:
    """A legal one: operation i takes effect at moment i, unless its answer is lost and it never happens."""
    machine = Machine()
    made: History = []
    revision = 0
    for moment in range(size):
        action = any_action(random, keys, revision)
        call, end = moment - random.random() * overlap, moment + random.random() * overlap
        if random.random() < lost:
            if random.random() < 0.6:
                machine.do(action)
            made.append(Operation(f"c{moment}", action, call, LOST, Outcome.UNKNOWN))
            continue
        result = machine.do(action)
        revision = result.revision or 0
        made.append(Operation(f"c{moment}", action, call, end, Outcome.OK, result))
    random.shuffle(made)
    return made


def changed(random: Random, result: Result) -> Result:
    """Another answer to the same question."""
    shift = random.choice((-2, -1, 1, 2))

    def other(number: int | None) -> int:
        return max(0, (number or 0) + shift)

    match result:
        case Written(revision, version):
            return random.choice((Written(other(revision), version), Written(revision, other(version))))
        case Deleted(deleted, revision):
            return random.choice((Deleted(1 - deleted, revision), Deleted(deleted, other(revision))))
        case Refused(mod, revision):
            return random.choice(
                (Refused(other(mod), revision), Refused(mod, other(revision)), Written(revision))
            )
        case Read(None, revision):
            return Read(None, other(revision))
        case Read(item, revision) if item is not None:
            name = random.choice(("value", "create_revision", "mod_revision", "version", "item", "revision"))
            if name in ("item", "revision"):
                return Read(None, revision) if name == "item" else Read(item, other(revision))
            value = b"%d" % random.randrange(6) if name == "value" else other(getattr(item, name))
            return Read(replace(item, **{name: value}), revision)
        case Listed(items, more, revision):
            kept = tuple(item for item in items if random.random() < 0.7)
            return random.choice((Listed(kept, more, revision), Listed(items, more, other(revision))))
    raise AssertionError(result)


def mutated(random: Random, made: History) -> History:
    """One answer changed."""
    places = [place for place, o in enumerate(made) if o.result is not None]
    if not places:
        return made
    place = random.choice(places)
    operation = made[place]
    assert operation.result is not None
    result = changed(random, operation.result)
    if isinstance(result, Written) and isinstance(operation.action, Delete):
        result = Deleted(1, result.revision)
    return [*made[:place], replace(operation, result=result), *made[place + 1 :]]


# -- the plain truth ---------------------------------------------------------------------------------------


def explained(made: History, fits: Callable[[tuple[Operation, ...]], bool]) -> bool:
    """Whether some order of the answered operations and some of the others, allowed by their times, fits."""
    answered = [o for o in made if o.outcome is Outcome.OK]
    others = [o for o in made if o.outcome is Outcome.UNKNOWN]
    return any(
        fits(order)
        for size in range(len(others) + 1)
        for some in combinations(others, size)
        for order in permutations([*answered, *some])
        if all(not b.end < a.call for a, b in combinations(order, 2))
    )


def fits_machine(order: tuple[Operation, ...]) -> bool:
    machine = Machine()
    return all(_same(machine.do(o.action), o.result) for o in order)


def _same(truth: Result, told: Result | None) -> bool:
    if isinstance(truth, Written) and isinstance(told, Written) and told.version is None:
        return truth.revision == told.revision
    return told is None or truth == told


def fits_model(model: Model) -> Callable[[tuple[Operation, ...]], bool]:
    def fits(order: tuple[Operation, ...]) -> bool:
        state = model.initial
        for operation in order:
            after = model.step(state, operation)
            if after is None:
                return False
            state = after
        return True

    return fits


# -- the tests ---------------------------------------------------------------------------------------------


@CHECKED
@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.integers(1, 4),
    st.sampled_from((0, 0.1, 0.4)),
    st.floats(0, 12),
)
def test_legal_histories_pass(seed: int, size: int, keys: int, lost: float, overlap: float) -> None:
    made = history(Random(seed), size, keys=keys, lost=lost, overlap=overlap)
    verdict = check(made)
    assert verdict, verdict.reason
    stripped = [replace(o, result=without_revisions(o.result)) for o in made]
    assert linearizability.check(stripped), "less was observed, and that refused"


def without_revisions(result: Result | None) -> Result | None:
    match result:
        case Written():
            return Written()
        case Deleted(deleted):
            return Deleted(deleted)
        case Refused():
            return Refused()
        case Read(item) if item is not None:
            return Read(replace(item, create_revision=None, mod_revision=None, version=None))
        case Read():
            return Read(None)
    return result


@CHECKED
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 2), st.floats(0, 4))
def test_one_answer_changed(seed: int, size: int, keys: int, overlap: float) -> None:
    random = Random(seed)
    made = mutated(random, history(random, size, keys=keys, lost=0, overlap=overlap))
    truth = explained(made, fits_machine)
    assert bool(check(made)) is truth
    assert bool(revisions.check(made)) is truth, "where all is answered, revisions tell it all"


@CHECKED
@given(st.integers(0, 2**32), st.integers(1, 5), st.floats(0, 4))
def test_one_answer_changed_where_others_were_lost(seed: int, size: int, overlap: float) -> None:
    random = Random(seed)
    made = mutated(random, history(random, size, keys=1, lost=0.4, overlap=overlap))
    if explained(made, fits_machine):
        verdict = check(made)
        assert verdict, verdict.reason


@CHECKED
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0, 5))
def test_a_register_is_searched_exactly(seed: int, size: int, overlap: float) -> None:
    random = Random(seed)
    made: History = []
    for moment in range(size):
        value, seen = b"%d" % random.randrange(3), b"%d" % random.randrange(3)
        action: Action = random.choice((Put(b"a", value), Cas(b"a", seen, value), Get(b"a"), Delete(b"a")))
        result: Result
        match action:
            case Get():
                result = Read(random.choice((None, Item(seen))))
            case Delete():
                result = Deleted(random.randrange(2))
            case Cas():
                result = random.choice((Written(), Refused()))
            case _:
                result = Written()
        call, end = moment - random.random() * overlap, moment + random.random() * overlap
        is_lost = random.random() < 0.2
        outcome = Outcome.UNKNOWN if is_lost else Outcome.OK
        made.append(
            Operation("c", action, call, LOST if is_lost else end, outcome, None if is_lost else result)
        )
    made = [o for o in made if o.outcome is Outcome.OK or not o.reads_only]
    assert bool(linearizability.check(made, Register())) is explained(made, fits_model(Register()))
