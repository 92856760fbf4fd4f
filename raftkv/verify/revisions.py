"""The whole history judged by its revisions, in O(n log n): every answer tells at which revision it took
effect, so the order is known and only has to be right.

1. No two writes have one revision; revisions begin at 1 and none is missing but those of unknown writes.
2. Real time: an operation's revision is at least the highest that was answered before its call; a write's is
   above it.
3. Every answer (reads, pages, refusals, conditions that held, versions) is that of the store as the writes up
   to its revision made it. A stale read too: it shows a state that was.

The store must begin empty, and all who write must be in the history. Operations without a revision are passed
over. Never refuses a legal history. NB: where writes of unknown outcome may hide between two answers about a
key (a revision is missing there, and such a write was asked for), what they may explain is let pass; the
search of ``linearizability`` is exact there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from raftkv.verify.gaps import Gaps, assign
from raftkv.verify.history import (
    Condition,
    Delete,
    Deleted,
    Item,
    List,
    Listed,
    Operation,
    Outcome,
    Put,
    Read,
    Refused,
    Written,
)
from raftkv.verify.pages import split
from raftkv.verify.verdict import SOUND, Verdict, refused


class _Contradiction(Exception):
    def __init__(self, reason: str, *culprits: Operation) -> None:
        super().__init__(reason)
        self.verdict = refused(reason, *culprits)


def check(history: Iterable[Operation], others: Collection[int] = frozenset()) -> Verdict:
    """LINEARIZABLE (as far as revisions tell) or REFUSED; never UNKNOWN. ``others``: the revisions, each of
    them once, of those who write other keys and aren't in the history.
    """
    operations = list(history)
    answered = [o for o in operations if o.outcome is Outcome.OK and o.revision is not None]
    unknown = [o for o in operations if o.outcome is Outcome.UNKNOWN and not o.reads_only]
    # NB: an answered write without a revision took one that we don't know: to us it is an unknown one.
    unknown += [o for o in operations if o.outcome is Outcome.OK and o.revision is None and o.changed]
    try:
        writes = _writes(answered)
        _check_real_time(answered)
        for revision in writes.keys() & set(others):
            raise _Contradiction(
                f"a write has revision {revision}, which is somebody else's", writes[revision]
            )
        gaps = assign(writes, answered, unknown, others)
        if isinstance(gaps, Verdict):
            return gaps
        replay = _Replay(gaps)
        at = sorted((o for o in answered if not o.changed), key=lambda o: o.revision or 0)
        position = 0
        for revision in sorted({*writes, *gaps.puts}):
            while position < len(at) and (at[position].revision or 0) < revision:
                replay.look(at[position])
                position += 1
            replay.write(revision, writes.get(revision))
        for operation in at[position:]:
            replay.look(operation)
    except _Contradiction as found:
        return found.verdict
    return SOUND


def _writes(answered: list[Operation]) -> dict[int, Operation]:
    writes: dict[int, Operation] = {}
    for operation in answered:
        if operation.changed:
            revision = operation.revision or 0
            if revision < 1:
                raise _Contradiction("a write has revision 0, that of the empty store", operation)
            if revision in writes:
                raise _Contradiction(f"two writes have revision {revision}", writes[revision], operation)
            writes[revision] = operation
    return writes


def _check_real_time(answered: list[Operation]) -> None:
    by_end = sorted(answered, key=lambda o: o.end)
    highest: Operation | None = None
    position = 0
    for operation in sorted(answered, key=lambda o: o.call):
        while by_end[position].end < operation.call:
            if highest is None or (by_end[position].revision or 0) > (highest.revision or 0):
                highest = by_end[position]
            position += 1
        if highest is None or operation.stale:
            continue
        revision, before = operation.revision or 0, highest.revision or 0
        if operation.changed and revision <= before:
            reason = f"a write has revision {revision}, but {before} was answered before it was called"
            raise _Contradiction(reason, highest, operation)
        if revision < before:
            reason = f"an answer at revision {revision}, but {before} was answered before its call"
            raise _Contradiction(reason, highest, operation)


@dataclass(slots=True)
class _Known:
    """What is known of a key: ``item`` as of revision ``since``, and the answer that last said so."""

    item: Item | None
    since: int
    source: Operation | None


class _Replay:
    """The store as the writes made it, revision by revision."""

    def __init__(self, gaps: Gaps) -> None:
        self._gaps = gaps
        self._keys: dict[bytes, _Known] = {}
        self._present: list[bytes] = []  # sorted

    # -- writes --------------------------------------------------------------------------------------------

    def write(self, revision: int, operation: Operation | None) -> None:
        """Apply the write of this revision; None: a put of unknown outcome that was seen."""
        if operation is None:
            seen = self._gaps.puts[revision]
            item = self._new_version(seen.key, seen.item, revision, seen.source)
            self._set(seen.key, item, revision, seen.source)
            return
        action, result = operation.action, operation.result
        if not isinstance(action, Put | Delete):
            raise ValueError(f"no operation of a key-value store: {action}")
        known = self._known(action.key)
        hidden = self._gaps.may_hide(action.key, known.since, revision - 1)
        if not hidden and not _holds(action.condition, known.item):
            raise self._contradiction(operation, known, "a write was done though its condition did not hold")
        if isinstance(action, Delete):
            if known.item is None and not hidden:
                raise self._contradiction(operation, known, "a delete removed a key that was not there")
            self._set(action.key, None, revision, operation)
        elif isinstance(result, Written):
            item = Item(action.value, None, revision, result.version)
            self._set(
                action.key, self._new_version(action.key, item, revision, operation), revision, operation
            )

    def _new_version(self, key: bytes, item: Item, revision: int, operation: Operation) -> Item:
        """``item``, put at ``revision``, with what follows from what was there before."""
        known = self._known(key)
        old = known.item
        version, create = item.version, item.create_revision
        if not self._gaps.may_hide(key, known.since, revision - 1):
            expected = 1 if old is None else None if old.version is None else old.version + 1
            if None not in (version, expected) and version != expected:
                reason = f"a put made version {version} of a key of which {expected} was next"
                raise self._contradiction(operation, known, reason)
            version = expected if version is None else version
            create = old.create_revision if old is not None and create is None else create
        if version == 1:
            create = revision
        return Item(item.value, create, revision, version)

    # -- answers -------------------------------------------------------------------------------------------

    def look(self, operation: Operation) -> None:
        """Compare an answer that changed nothing, at its revision."""
        action, result, revision = operation.action, operation.result, operation.revision or 0
        match result:
            case Read(item):
                self._see(operation.key or b"", item, revision, operation)
            case Deleted():
                self._see(operation.key or b"", None, revision, operation)
            case Refused(mod):
                key = operation.key or b""
                if mod is not None:
                    self._see(key, Item(mod_revision=mod) if mod else None, revision, operation)
                known = self._known(key)
                condition = getattr(action, "condition", None)
                hidden = self._gaps.may_hide(key, known.since, revision)
                if not hidden and (condition is None or _holds(condition, known.item, unknown=False)):
                    raise self._contradiction(operation, known, "refused, though its condition held")
            case Listed():
                assert isinstance(action, List)
                self._see_page(action, result, revision, operation)

    def _see(self, key: bytes, item: Item | None, revision: int, operation: Operation) -> None:
        known = self._known(key)
        # Only such answers can tell of a hidden write: a put whose revision somebody saw hides no longer.
        telling = item is None or item.mod_revision is None
        if telling and self._gaps.may_hide(key, known.since, revision, deletes=item is None):
            self._set(key, item, revision, operation)
            return
        merged = _merged(known.item, item)
        if merged is None and not known.item is item is None:
            reason = f"{_words(item)} at revision {revision}, where it is {_words(known.item)}"
            raise self._contradiction(operation, known, f"key {key!r}: the answer is {reason}")
        self._set(key, merged, revision, operation)

    def _see_page(self, page: List, listed: Listed, revision: int, operation: Operation) -> None:
        keys = [key for key, _ in listed.items]
        if keys != sorted(set(keys), reverse=page.reverse):
            raise _Contradiction("a page's keys are out of order or repeated", operation)
        if len(keys) > page.limit or any(not _within(page, key) for key in keys):
            raise _Contradiction("a page has keys outside its range, or too many", operation)
        for key, item in listed.items:
            self._see(key, item, revision, operation)
        keys_listed = set(keys)
        covered, beyond = split(page, listed, self._present)
        for key in covered:
            if key not in keys_listed:
                self._see(key, None, revision, operation)
        if listed.more and not beyond and not self._gaps.missing:
            raise _Contradiction("a page says that more follows, and nothing does", operation)
        if listed.more is False and beyond:
            known = self._known(beyond[0])
            if not self._gaps.may_hide(beyond[0], known.since, revision, deletes=True):
                raise self._contradiction(operation, known, f"a page hides that {beyond[0]!r} follows")

    # -- the state -----------------------------------------------------------------------------------------

    def _known(self, key: bytes) -> _Known:
        return self._keys.get(key) or _Known(None, 0, None)

    def _set(self, key: bytes, item: Item | None, revision: int, source: Operation | None) -> None:
        was = self._known(key).item is not None
        self._keys[key] = _Known(item, revision, source)
        if item is not None and not was:
            insort(self._present, key)
        elif item is None and was:
            del self._present[bisect_left(self._present, key)]

    def _contradiction(self, operation: Operation, known: _Known, reason: str) -> _Contradiction:
        sources = [] if known.source is None or known.source is operation else [known.source]
        return _Contradiction(reason, *sources, operation)


def _merged(known: Item | None, seen: Item | None) -> Item | None:
    """Both together; None where they contradict each other or the key is absent."""
    if known is None or seen is None:
        return None
    pairs = [(getattr(known, name), getattr(seen, name)) for name in Item.__slots__]
    if any(ours is not None and theirs is not None and ours != theirs for ours, theirs in pairs):
        return None
    return Item(*(theirs if ours is None else ours for ours, theirs in pairs))


def _holds(condition: Condition | None, item: Item | None, *, unknown: bool = True) -> bool:
    """Whether ``condition`` holds of ``item``; ``unknown`` where its revision isn't known."""
    if condition is None:
        return True
    mod = 0 if item is None else item.mod_revision
    return unknown if mod is None else condition.holds(mod)


def _within(page: List, key: bytes) -> bool:
    return page.start <= key and (page.end is None or key < page.end)


def _words(item: Item | None) -> str:
    if item is None:
        return "absent"
    known = ((name, getattr(item, name)) for name in Item.__slots__)
    return "there" + "".join(f", {name} {value!r}" for name, value in known if value is not None)
