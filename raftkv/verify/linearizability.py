"""Is there an order of all operations that their times allow and a model agrees with? Key by key.

Wing and Gong's search with Lowe's cache, as in Porcupine (checker.go); a history is linearizable exactly if
each key's part is (Herlihy and Wing's locality), so each is searched alone. A page counts as a read of each
key that it covers; that these reads are of one moment is for ``revisions`` to check. Stale reads promise no
place in real time: that they show a past state is for ``revisions``, too.

- Answered operations lie in a doubly linked list by their returns. One may come next in the order if it was
  called before the first return that is left. Linearizing it takes it out; going back puts it in again.
- What changes nothing is linearized as soon as it fits, without a second thought. Where a model orders by
  revision (the chain), so does the search.
- What was linearized (a bit set) with the state it led to is remembered: no such pair is tried twice.
- A write of unknown outcome has no return. It is tried after what was answered, and never needs to be
  linearized.
- Time and memory are bounded; beyond either the answer is UNKNOWN.

Must not know any model, nor the format of histories.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate

from raftkv.verify.history import Action, Cas, Operation, Outcome, Put, Read
from raftkv.verify.models import KeyValue, Model
from raftkv.verify.pages import reads
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
    model = model or KeyValue()
    operations = [operation for operation in history if _counts(operation)]
    parts = _parts(operations)
    for key in sorted(parts, key=lambda key: len(parts[key])):
        pairs = parts[key]
        settled = settle([pair[0] for pair in pairs])
        verdict = _check_key(key, settled, model, deadline_s, cache_bytes)
        if not verdict:
            whole = {part: pair[1] for part, pair in zip(settled, pairs, strict=True)}
            culprits, order = (tuple(whole[o] for o in some) for some in (verdict.culprits, verdict.order))
            return replace(verdict, culprits=culprits, order=order)
    return SOUND


def _parts(operations: list[Operation]) -> dict[bytes, list[tuple[Operation, Operation]]]:
    """By key: what an operation asked and was answered about it, and that operation."""
    parts: defaultdict[bytes, list[tuple[Operation, Operation]]] = defaultdict(list)
    for operation in operations:
        if operation.key is not None:
            parts[operation.key].append((operation, operation))
    keys = sorted(parts)
    for operation in operations:
        for key, part in reads(operation, keys):
            parts[key].append((part, operation))
    return parts


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


# What was done. ``first`` is the first operation left; all before it are done, so the bits of ``window``
# begin there and are only as many as the history is concurrent. ``lost``: the unknown writes, as bits.
# ``chained``: how many of the chain of revisions.
_Done = tuple[int, int, int, int]  # first, window, lost, chained
_NOTHING: _Done = (0, 0, 0, 0)
# A step: what was linearized; before it, the state, what was done, unknown writes in a row; what else fitted.
_Frame = tuple[int, Hashable, _Done, int, Iterator[tuple[int, Hashable]]]


class _Search:
    """One key's search. Candidates are numbered: answered ones from 0 by their ends, then unknown writes.

    ``longest`` is the longest order found, ``stuck`` the operations that were next in time and did not fit.
    """

    def __init__(
        self, operations: list[Operation], model: Model, deadline_s: float, cache_bytes: int
    ) -> None:
        self.known = sorted((o for o in operations if o.outcome is Outcome.OK), key=lambda o: (o.end, o.call))
        self.unknown = sorted((o for o in operations if o.outcome is not Outcome.OK), key=lambda o: o.call)
        self.longest: tuple[Operation, ...] = ()
        self.stuck: tuple[Operation, ...] = ()
        self._model = model
        self._deadline_s = deadline_s
        self._max_cached = max(1, cache_bytes // (_ENTRY_BYTES + len(self.unknown) // 8))
        # From each place on, the earliest call: a walk through the list may stop where none is early enough.
        calls = accumulate((o.call for o in reversed(self.known)), min)
        self._earliest_call = [*calls][::-1]
        # The answered operations that have revisions, in the order of those.
        chain = sorted(
            (o.revision, not o.changed, o.call, place)
            for place, o in enumerate(self.known)
            if model.by_revision and o.revision is not None
        )
        self._chain = [self.known[place] for *_, place in chain]
        self._rank: list[int | None] = [None] * len(self.known)
        for rank, (*_, place) in enumerate(chain):
            self._rank[place] = rank
        self._alike = self._alike_before()
        # The list: neighbours by place. Its head and its end are one place, beyond the last.
        self._next: list[int] = []
        self._previous: list[int] = []

    def _alike_before(self) -> list[int]:
        """For each unknown write, the bit of the last one before it that would do the same, if any.

        One that may happen now may happen at any later time as well: of those alike, the first will do.
        Values that nobody saw are alike.
        """
        seen = {value for o in self.known for value in _values_told(o)}
        seen |= {o.action.expected for o in (*self.known, *self.unknown) if isinstance(o.action, Cas)}
        last: dict[tuple[Action, bool], int] = {}
        before = []
        for place, operation in enumerate(self.unknown):
            action = operation.action
            alike: tuple[Action, bool] = (action, False)
            if isinstance(action, Put | Cas) and action.value not in seen:
                alike = (replace(action, value=b""), True)
            before.append(last.get(alike, 0))
            last[alike] = 1 << place
        return before

    def run(self, in_a_row: int) -> bool:
        """Whether there is an order with at most ``in_a_row`` unknown writes between two answered ones."""
        end = left = len(self.known)
        self._next = [*range(1, end + 1), 0]
        self._previous = [end, *range(end)]
        state: Hashable = self._model.initial
        cache: set[tuple[_Done, Hashable]] = set()
        stack: list[_Frame] = []
        done, row, steps = _NOTHING, 0, 0
        options = self._options(state, done, row < in_a_row)
        while left:
            steps += 1
            if steps % _LOOK_AT_CLOCK_STEPS == 0:
                self._look_at_bounds(len(cache))
            option = next(options, None)
            if option is None:
                self._note(stack, done)
                if not stack:
                    return False
                place, state, done, row, options = stack.pop()
                if place < end:
                    self._next[self._previous[place]] = self._previous[self._next[place]] = place
                    left += 1
                continue
            place, after = option
            now_done = self._with(done, place)
            if (now_done, after) in cache:
                continue
            cache.add((now_done, after))
            stack.append((place, state, done, row, options))
            if place < end:
                self._next[self._previous[place]] = self._next[place]
                self._previous[self._next[place]] = self._previous[place]
                left -= 1
            state, done, row = after, now_done, 0 if place < end else row + 1
            options = self._options(state, done, row < in_a_row)
        return True

    def _with(self, done: _Done, place: int) -> _Done:
        """``done`` and ``place``, which is still in the list."""
        first, window, lost, chained = done
        if place >= len(self.known):
            return first, window, lost | 1 << (place - len(self.known)), chained
        left = self._next[place] if place == first else first
        chained += self._rank[place] is not None
        return left, (window | 1 << (place - first)) >> (left - first), lost, chained

    def _options(self, state: Hashable, done: _Done, try_unknown: bool) -> Iterator[tuple[int, Hashable]]:
        """What may come next, and the state after it. Those first that must return first."""
        step, end = self._model.step, len(self.known)
        _, _, lost, chained = done
        place = self._next[end]
        bound = self.known[place].end if place < end else math.inf  # what was called later can't come next
        changing = []
        while place < end and self._earliest_call[place] <= bound:
            operation = self.known[place]
            if operation.call <= bound and self._rank[place] in (None, chained):
                after = step(state, operation)
                if after == state:
                    # It changes nothing: whatever order has it later is as good with it here. Try no other.
                    yield place, after
                    return
                if after is not None:
                    changing.append((place, after))
            place = self._next[place]
        yield from changing
        if not try_unknown:
            return
        following = self._chain[chained] if chained < len(self._chain) else None
        for place, operation in enumerate(self.unknown):
            if operation.call > bound:
                return
            alike = self._alike[place]
            if lost >> place & 1 or lost & alike != alike:
                continue
            after = step(state, operation)
            if after is not None and (following is None or self._model.leaves_room(after, following)):
                yield end + place, after

    def _note(self, stack: list[_Frame], done: _Done) -> None:
        """Keep the longest order for the report."""
        if self.stuck and len(stack) <= len(self.longest):
            return
        every = [*self.known, *self.unknown]
        self.longest = tuple(every[frame[0]] for frame in stack)
        end = len(self.known)
        place = self._next[end]
        bound, stuck = self.known[place].end, []
        while place < end and self._earliest_call[place] <= bound:
            if self.known[place].call <= bound:
                stuck.append(self.known[place])
            place = self._next[place]
        # What is next by revision may be called only later.
        chained = done[3]
        self.stuck = tuple(dict.fromkeys([*stuck, *self._chain[chained : chained + 1]]))

    def _look_at_bounds(self, cached: int) -> None:
        if time.monotonic() >= self._deadline_s:
            raise _OutOfBounds("the time was up before the search ended")
        if cached > self._max_cached:
            raise _OutOfBounds(f"the search was given up at {cached:,} states: too much for its memory")


def _values_told(operation: Operation) -> Iterator[bytes]:
    result = operation.result
    if isinstance(result, Read) and result.item is not None and result.item.value is not None:
        yield result.item.value
