"""The revisions that no answered write has, and the unknown writes that may have taken them.

An unknown write can have a revision only if it was called before anybody was answered at that revision or a
later one: each missing revision has such a *deadline*, and deadlines grow with revisions. Where an answer
shows a key's ``mod_revision`` to be a missing one, a put of that key took it. Must not know the replay.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from raftkv.verify.history import Cas, Delete, Item, Listed, Operation, Put, Read, Refused
from raftkv.verify.verdict import Verdict, refused


@dataclass(frozen=True, slots=True)
class Seen:
    """A put that was never answered, as an answer shows it. ``deadline_s`` as above."""

    key: bytes
    item: Item
    source: Operation
    deadline_s: float


@dataclass(slots=True)
class Gaps:
    """``puts``: revision -> the unknown put that took it; ``missing``: the other missing revisions,
    ascending, with ``deadlines`` beside them. Of the unknown writes that are left, each key's first call.
    """

    puts: dict[int, Seen]
    missing: list[int] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    first_write: dict[bytes, float] = field(default_factory=dict)
    first_delete: dict[bytes, float] = field(default_factory=dict)

    def may_hide(self, key: bytes, since: int, until: int, *, deletes: bool = False) -> bool:
        """Whether an unknown write (only a delete, if ``deletes``) may have changed ``key`` at a revision
        above ``since`` and up to ``until``.
        """
        first = (self.first_delete if deletes else self.first_write).get(key)
        place = bisect_right(self.missing, until) - 1
        return (
            first is not None
            and place >= 0
            and self.missing[place] > since
            and first <= self.deadlines[place]
        )


def assign(
    writes: dict[int, Operation],
    answered: list[Operation],
    unknown: list[Operation],
    others: Collection[int] = frozenset(),
) -> Gaps | Verdict:
    """Match missing revisions and unknown writes; REFUSED where that can't be done. ``others``: revisions
    that are known not to be of this history.
    """
    answered = sorted(answered, key=lambda o: o.revision or 0)
    revisions = [o.revision or 0 for o in answered]
    deadlines = [math.inf]
    for operation in reversed(answered):
        deadlines.append(min(deadlines[-1], operation.end))
    deadlines.reverse()

    def deadline_s(revision: int) -> float:
        return deadlines[bisect_left(revisions, revision)]

    gaps = Gaps({})
    for key, item, operation in _items(answered):
        mod = item.mod_revision
        if mod is None or mod in writes:
            continue  # the replay compares it with the write
        if mod in others:
            return refused(f"key {key!r} was changed at revision {mod}, which is somebody else's", operation)
        if mod < 1 or mod > (operation.revision or 0):
            return refused(
                f"key {key!r} was changed at revision {mod}, which is not before the answer's", operation
            )
        before = gaps.puts.get(mod)
        if before is not None and before.key != key:
            return refused(f"revision {mod} changed two keys", before.source, operation)
        shown = item if before is None else _together(before.item, item)
        gaps.puts[mod] = Seen(key, shown, before.source if before else operation, deadline_s(mod))
    left = _give_out(gaps.puts, unknown)
    if isinstance(left, Verdict):
        return left
    highest = revisions[-1] if revisions else 0
    lacking = highest - len(writes) - len(gaps.puts) - sum(1 <= revision <= highest for revision in others)
    if lacking > len(left):
        return refused(
            f"revisions up to {highest} were answered, but {lacking} of them belong to no write"
            + (f", and only {len(left)} writes of unknown outcome may have them" if left else ""),
            *answered[-1:],
        )
    gaps.missing = (
        [r for r in range(1, highest + 1) if not (r in writes or r in gaps.puts or r in others)]
        if lacking
        else []
    )
    gaps.deadlines = [deadline_s(revision) for revision in gaps.missing]
    calls = sorted(o.call for o in left)
    for revision, limit, call in zip(gaps.missing, gaps.deadlines, calls, strict=False):
        if call > limit:
            first = answered[bisect_left(revisions, revision)]
            return refused(
                f"revision {revision} was answered before any write that may have it was called", first
            )
    for operation in sorted(left, key=lambda o: o.call):
        gaps.first_write.setdefault(operation.key or b"", operation.call)
        if isinstance(operation.action, Delete):
            gaps.first_delete.setdefault(operation.key or b"", operation.call)
    return gaps


def _items(answered: list[Operation]) -> Iterator[tuple[bytes, Item, Operation]]:
    """Every key that an answer shows to be there."""
    for operation in answered:
        match operation.result:
            case Read(item) if item is not None:
                yield operation.key or b"", item, operation
            case Refused(mod) if mod:
                yield operation.key or b"", Item(mod_revision=mod), operation
            case Listed(items):
                yield from ((key, item, operation) for key, item in items)


def _give_out(puts: dict[int, Seen], unknown: list[Operation]) -> list[Operation] | Verdict:
    """Give each put that was seen an unknown one; the unknown writes that are left.

    Each takes the latest call that its deadline allows: what is left then fits the most. (Those that saw no
    value choose last.)
    """
    pools: defaultdict[bytes, list[Operation]] = defaultdict(list)
    for operation in sorted(unknown, key=lambda o: o.call):
        if isinstance(operation.action, Put | Cas):
            pools[operation.action.key].append(operation)
    taken: set[int] = set()
    for revision, seen in sorted(puts.items(), key=lambda pair: (pair[1].item.value is None, pair[0])):
        pool = pools[seen.key]
        fitting = [
            place
            for place, o in enumerate(pool)
            if o.call <= seen.deadline_s and seen.item.value in (None, getattr(o.action, "value", None))
        ]
        if not fitting:
            shown = "" if seen.item.value is None else f" with value {seen.item.value[:40]!r}"
            reason = f"key {seen.key!r} was put at revision {revision}{shown}, and nobody had asked for that"
            return refused(reason, seen.source)
        taken.add(id(pool.pop(fitting[-1])))
    return [o for o in unknown if id(o) not in taken]


def _together(first: Item, second: Item) -> Item:
    return Item(
        *(
            theirs if ours is None else ours
            for ours, theirs in ((getattr(first, name), getattr(second, name)) for name in Item.__slots__)
        )
    )
