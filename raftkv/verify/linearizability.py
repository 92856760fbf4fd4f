"""Is there an order of all operations that their times allow and a model agrees with? Key by key.

Wing and Gong's search with Lowe's cache, as in Porcupine (checker.go); a history is linearizable exactly if
each key's part is (Herlihy and Wing's locality), so each is searched alone. Lists span keys: ``revisions``
checks them. Stale reads promise no place in real time: that they show a past state is for ``revisions``, too.

- Calls and returns lie in a doubly linked list by time. A call may come next in the order as long as no
  return is before it. Linearizing an operation takes both its entries out; going back puts them in again.
- What was linearized (a bit set) with the state it led to is remembered: no such pair is tried twice.
- A write of unknown outcome has no return. It is tried after what was answered, and never needs to be
  linearized.
- Time and memory are bounded; beyond either the answer is UNKNOWN.

Must not know any model, nor the format of histories.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Iterable

from raftkv.verify.history import List, Operation, Outcome
from raftkv.verify.models import KeyValue, Model
from raftkv.verify.surfaced import settle
from raftkv.verify.verdict import SOUND, Answer, Verdict

MAX_CACHE_BYTES = 256 * 2**20
_ENTRY_BYTES = 400  # a pair, its state and its place in the set, measured; the bits come on top
_LOOK_AT_CLOCK_STEPS = 1024
# How many unknown writes the order may have in a row, search by search. The last is exact; a legal history
# hardly ever needs it, and without the others a wrong guess drags all the other guesses behind it.
_UNKNOWN_IN_A_ROW = (1, 3, 1 << 30)


class _OutOfBounds(Exception):
    """The time or the memory is up."""


def check(
    history: Iterable[Operation],
    model: Model | None = None,
    *,
    timeout_s: float = 60.0,
    cache_bytes: int = MAX_CACHE_BYTES,
) -> Verdict:
    """Whether every key's operations fit ``model`` (KeyValue unless told). Stops at the first key that does
    not.

    Raises ValueError where the model doesn't know an operation.
    """
    deadline_s = time.monotonic() + timeout_s
    parts: defaultdict[bytes, list[Operation]] = defaultdict(list)
    for operation in history:
        if not isinstance(operation.action, List) and _counts(operation):
            parts[operation.action.key].append(operation)
    for key in sorted(parts, key=lambda key: len(parts[key])):
        verdict = _check_key(key, settle(parts[key]), model or KeyValue(), deadline_s, cache_bytes)
        if not verdict:
            return verdict
    return SOUND


def _counts(operation: Operation) -> bool:
    """Whether it bears on the order: a failure had no effect, and a read without answer tells nothing."""
    if operation.outcome is Outcome.OK:
        return not operation.stale
    return operation.outcome is Outcome.UNKNOWN and not operation.reads_only


def _check_key(
    key: bytes, operations: list[Operation], model: Model, deadline_s: float, cache_bytes: int
) -> Verdict:
    search = _Search(operations, model, deadline_s, cache_bytes)
    try:
        fits = any(search.run(bound) for bound in (_UNKNOWN_IN_A_ROW if search.unknown else (0,)))
    except _OutOfBounds as error:
        return Verdict(Answer.UNKNOWN, f"key {key!r}: {error}", search.stuck, search.longest)
    if fits:
        return SOUND
    reason = f"key {key!r}: no order of its operations explains all results"
    return Verdict(Answer.REFUSED, reason, search.stuck, search.longest)


class _Search:
    """One key's search. Candidates are numbered: entries of the list from 1, then the unknown writes.

    ``longest`` is the longest order found, ``stuck`` the operations that were next in time and did not fit.
    """

    def __init__(
        self, operations: list[Operation], model: Model, deadline_s: float, cache_bytes: int
    ) -> None:
        self.known = [o for o in operations if o.outcome is Outcome.OK]
        self.unknown = sorted((o for o in operations if o.outcome is not Outcome.OK), key=lambda o: o.call)
        self.longest: tuple[Operation, ...] = ()
        self.stuck: tuple[Operation, ...] = ()
        self._model = model
        self._deadline_s = deadline_s
        self._max_cached = max(1, cache_bytes // (_ENTRY_BYTES + len(operations) // 8))
        # Calls before returns where times are equal: intervals are closed.
        events = sorted(
            event for index, o in enumerate(self.known) for event in ((o.call, 0, index), (o.end, 1, index))
        )
        self._time = [0.0, *(event[0] for event in events)]
        self._owner = [-1, *(event[2] for event in events)]  # entry -> index in known
        returns = {index: entry for entry, (_, kind, index) in enumerate(events, 1) if kind}
        self._return_of = [0, *(0 if kind else returns[index] for _, kind, index in events)]  # 0: is a return
        self._end = len(events) + 1  # the first number that is an unknown write's
        self._next: list[int] = []
        self._previous: list[int] = []

    def run(self, in_a_row: int) -> bool:
        """Whether there is an order with at most ``in_a_row`` unknown writes between two answered ones."""
        self._next = [*range(1, self._end + 1), 0]
        self._previous = [0, *range(self._end)]
        step, end, unknown = self._model.step, self._end, self.unknown
        state: Hashable = self._model.initial
        cache: set[tuple[int, Hashable]] = set()
        stack: list[tuple[int, Hashable, int, int, float]] = []
        done, left, row, bound, steps = 0, len(self.known), 0, 0.0, 0
        at = self._next[0]
        while left:
            steps += 1
            if steps % _LOOK_AT_CLOCK_STEPS == 0:
                self._look_at_bounds(len(cache))
            if at < end and not self._return_of[at]:
                # What was called after this can't come before it: now the unknown writes have their turn.
                bound, at = self._time[at], end
                continue
            is_known = at < end
            if not is_known and (
                at - end >= len(unknown) or unknown[at - end].call > bound or row >= in_a_row
            ):
                self._note(stack)
                if not stack:
                    return False
                at, state, done, row, bound = stack.pop()
                if at < end:
                    self._put_back(at)
                    left += 1
                    at = self._next[at]
                else:
                    at += 1
                continue
            bit = 1 << (self._owner[at] if is_known else at - end + len(self.known))
            if not done & bit:
                operation = self.known[self._owner[at]] if is_known else unknown[at - end]
                after = step(state, operation)
                if after is not None and (done | bit, after) not in cache:
                    cache.add((done | bit, after))
                    stack.append((at, state, done, row, bound))
                    state, done, row = after, done | bit, 0 if is_known else row + 1
                    if is_known:
                        self._take_out(at)
                        left -= 1
                    at = self._next[0]
                    continue
            at = self._next[at] if is_known else at + 1
        return True

    def _take_out(self, call: int) -> None:
        following, previous = self._next, self._previous
        for entry in (call, self._return_of[call]):
            following[previous[entry]] = following[entry]
            previous[following[entry]] = previous[entry]

    def _put_back(self, call: int) -> None:
        following, previous = self._next, self._previous
        for entry in (self._return_of[call], call):
            following[previous[entry]] = entry
            previous[following[entry]] = entry

    def _note(self, stack: list[tuple[int, Hashable, int, int, float]]) -> None:
        """Keep the longest order for the report."""
        if self.stuck and len(stack) <= len(self.longest):
            return
        end = self._end
        self.longest = tuple(
            self.known[self._owner[at]] if at < end else self.unknown[at - end] for at, *_ in stack
        )
        at, stuck = self._next[0], []
        while self._return_of[at]:
            stuck.append(self._owner[at])
            at = self._next[at]
        self.stuck = tuple(self.known[index] for index in stuck)

    def _look_at_bounds(self, cached: int) -> None:
        if time.monotonic() >= self._deadline_s:
            raise _OutOfBounds("the time was up before the search ended")
        if cached > self._max_cached:
            raise _OutOfBounds(f"the search was given up at {cached:,} states: too much for its memory")
