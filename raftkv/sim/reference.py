"""What the replicated machine must have done, computed a second time from the committed log alone.

Results, revisions, exactly-once, and what anything was at any moment, by ``model``. The first machine that
applies an entry decides whether its batch was dropped as seen before; the reference checks that nothing is
applied twice, and that every other machine agrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from struct import unpack, unpack_from
from typing import Any

import msgpack

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.machine import Applied, KvMachine
from raftkv.kv.results import Rejected, unpack_result
from raftkv.kv.session import BatchId, decode_batch
from raftkv.sim.model import LEASED, NOTHING, Change, Held, Model, Moment

Image = dict[str, Any]
"""What a snapshot holds, part by part."""

_LEVEL_1 = (1, 0, 0, None, 1, 0, 0, 0)  # what a snapshot of version 1 doesn't say


class Reference:
    def __init__(self) -> None:
        self.model = Model()
        self._results: list[Sequence[Any] | None] = []  # by position among the log's batches
        self._batches: list[BatchId | None] = []  # by position; None: was dropped as seen before
        self._moments: list[Moment] = [Moment()]  # after so many batches
        self._seen: set[BatchId] = set()

    @property
    def revision(self) -> int:
        return self.model.revision

    def wrote(self, value: bytes) -> bool:
        """Whether ``value`` was ever put. Values are unique, but for the numbers that are counted up."""
        return self.model.wrote(value)

    def applied(self, position: int, time_ms: int, data: bytes, applied: Applied | None) -> None:
        """A machine has applied the log's batch number ``position`` (from 0): is it what must be?"""
        if applied is None:
            raise InvariantBroken(f"batch {position} is no batch")
        if position == len(self._results):
            self._results.append(self._replay(time_ms, data, applied))
            self._batches.append(None if applied.results is None else applied.batch)
            self._moments.append(self.model.moment())
        expected, results = self._results[position], applied.results
        if results is not None:
            results = list(results)
        if results != expected and without_details(results) != expected:
            raise InvariantBroken(f"batch {position} gave {results}, and elsewhere {expected}")

    def _replay(self, time_ms: int, data: bytes, applied: Applied) -> list[Any] | None:
        batch, commands = decode_batch(data)
        self.model.pass_time(time_ms)
        if applied.results is None:
            return None
        name = BatchId(batch.node, batch.incarnation, batch.seq, 0)
        if name in self._seen:
            raise InvariantBroken(f"sessions: {name} is applied twice")
        self._seen.add(name)
        return [self.model.execute(command) for command in commands]

    # -- what was ------------------------------------------------------------------------------------------

    def changed(self, revision: int) -> dict[bytes, bytes | None]:
        """What each key that changed at ``revision`` held from then on; None: it was deleted."""
        return {key: then.value for key, (_, then) in self.model.changes[revision - 1].items()}

    def at(self, key: bytes, revision: int) -> tuple[int, bytes | None]:
        """(mod_revision, value) of ``key`` when the store was at ``revision``; (0, None) where absent."""
        held = self.model.at(key, revision)
        return held.modified, held.value

    def after(self, batches: int) -> Moment:
        """The machine when the log's first ``batches`` are applied."""
        return self._moments[batches]

    def check_machine(self, who: str, batches: int, machine: KvMachine) -> None:
        """What can be seen at once of a machine that has applied the log's first ``batches``."""
        moment, store = self._moments[batches], machine.store
        if store.revision != moment.revision:
            raise InvariantBroken(
                f"{who} is at revision {store.revision}, and {batches} batches lead to {moment.revision}"
            )
        if store.history is not None and store.history.compacted != moment.compacted:
            raise InvariantBroken(
                f"{who} has forgotten revisions up to {store.history.compacted}, not {moment.compacted}"
            )
        if machine.checksum != moment.checksum or machine.time_ms != moment.time_ms:
            raise InvariantBroken(
                f"{who} has the checksum {machine.checksum} at {machine.time_ms} ms, and {batches} batches "
                f"lead to {moment.checksum} at {moment.time_ms} ms"
            )

    # -- snapshots -----------------------------------------------------------------------------------------

    def check_image(self, who: str, batches: int, chunks: Iterable[bytes]) -> None:
        """``chunks``, as a machine exports them, must hold what the log's first ``batches`` lead to."""
        found, expected = _image_of(chunks), self._image_after(batches)
        for part, held in found.items():
            if held != expected[part]:
                raise InvariantBroken(
                    f"{who} is another machine than {batches} batches lead to: its {part} are {held}, "
                    f"expected {expected[part]}"
                )

    def _image_after(self, batches: int) -> Image:
        moment = self._moments[batches]
        revision, compacted = moment.revision, moment.compacted
        return {
            "numbers": moment._replace(leases={}),
            "sessions": self._sessions_after(batches),
            "leases": moment.leases,
            "tokens": self.model.tokens[: moment.tokens],
            "changes": list(self.model.between(compacted, revision)) if moment.level > 1 else [],
            "keys": self.model.store_at(revision),
        }

    def _sessions_after(self, batches: int) -> dict[str, tuple[int, int, list[int]]]:
        """node -> (incarnation, low, numbers applied from there on)"""
        of_node: dict[str, list[BatchId]] = {}
        for batch in self._batches[:batches]:
            if batch is not None:
                of_node.setdefault(batch.node, []).append(batch)
        sessions = {}
        for node, all_of_it in of_node.items():
            last = max(batch.incarnation for batch in all_of_it)
            ours = [batch for batch in all_of_it if batch.incarnation == last]
            low = max(1, *(batch.low for batch in ours))
            sessions[node] = last, low, sorted(batch.seq for batch in ours if batch.seq >= low)
        return sessions


def held_of(row: bytes | None) -> Held:
    """What a row says, which has no content type."""
    if row is None:
        return NOTHING
    created, modified, version, size = unpack_from("<QQQI", row)
    if size == LEASED:
        return Held(modified, row[36:], created, version, unpack_from("<Q", row, 28)[0])
    return Held(modified, row[28:], created, version, 0)


def without_details(result: Any) -> Any:
    """What people are told of why something is rejected isn't compared."""
    if isinstance(result, Rejected):
        return replace(result, detail="")
    if isinstance(result, list):
        return [without_details(each) for each in result]
    if is_dataclass(result) and not isinstance(result, type):
        parts = {field.name: getattr(result, field.name) for field in fields(result)}
        if type(parts.get("results")) is tuple:
            return type(result)(**{**parts, "results": tuple(without_details(list(parts["results"])))})
    return result


def _image_of(chunks: Iterable[bytes]) -> Image:
    found = iter([msgpack.unpackb(chunk) for chunk in chunks if chunk])
    version, revision, keys, nodes, *more = next(found)
    sessions = {node: (number, low, _numbers(applied)) for node, number, low, applied in islice(found, nodes)}
    level, time_ms, compacted, checksum, next_lease, leases, tokens, changes = more or _LEVEL_1
    if (version, level) not in {(1, 1), (2, 2)}:
        raise InvariantBroken(f"a machine of level {level} in a snapshot of version {version}")
    rows = {lease: tuple(row) for lease, *row in _rows(found, 4, leases)}
    once = [
        (token, at_ms, fingerprint, without_details(unpack_result(result)))
        for token, at_ms, fingerprint, result in _rows(found, 4, tokens)
    ]
    history = _changes(found, changes)
    store = {key: held_of(row) for key, row in _rows(found, 2, keys)}
    if len(store) != keys or next(found, None) is not None:
        raise InvariantBroken(f"a snapshot with other keys than the {keys} that it says")
    return {
        "numbers": Moment(revision, level, time_ms, compacted, checksum, next_lease, {}, tokens),
        "sessions": sessions,
        "leases": rows,
        "tokens": once,
        "changes": history,
        "keys": store,
    }


def _rows(chunks: Iterator[list[Any]], width: int, count: int) -> Iterator[list[Any]]:
    """``count`` rows of ``width`` values, from as many chunks as it takes."""
    while count > 0:
        chunk = next(chunks)
        count -= len(chunk) // width
        yield from (chunk[at : at + width] for at in range(0, len(chunk), width))


def _changes(chunks: Iterator[list[Any]], count: int) -> list[Change]:
    found: list[Change] = []
    last: dict[bytes, Held] = {}
    while len(found) < count:
        for revision, key, new, old in _rows(iter([next(chunks)[1:]]), 4, 1):
            before = last[key] if old is False else held_of(old)
            last[key] = held_of(new)
            found.append((revision, key, before, last[key]))
    return found


def _numbers(packed: bytes) -> list[int]:
    return list(unpack(f"<{len(packed) // 8}Q", packed))
