"""Broken twins of the machine's second level, and of cluster time, for ``ablation.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raftkv.consensus.log import Log
from raftkv.consensus.roles import Leader
from raftkv.kv import snapshot as snapshot_module
from raftkv.kv.history import Change, History
from raftkv.kv.lease import Lease, Leases
from raftkv.kv.machine import Applied, KvMachine
from raftkv.kv.results import Result, unpack_result
from raftkv.kv.row import item_of
from raftkv.kv.store import Item, Overlay, Store
from raftkv.kv.token import Outcome, Tokens
from raftkv.kv.txn import Txn
from raftkv.sim.features import Housekeeping
from raftkv.sim.server import WatchedMachine

Patch = tuple[Any, str, Any]


# -- snapshots ---------------------------------------------------------------------------------------------


def _no_tokens(self: Tokens) -> dict[str, Outcome]:
    return {}


def _no_leases(self: Leases) -> dict[int, Lease]:
    return {}


def _history_left_out() -> Patch:
    """As if all of it had been compacted."""
    original = snapshot_module._beyond_rows

    def beyond_rows(machine: Any, history: History) -> tuple[list[int], Iterator[list[Any]]]:
        return original(machine, History(machine.store.revision, history.checksum))

    return snapshot_module, "_beyond_rows", beyond_rows


def _new_checksum(compacted: int, checksum: int) -> History:
    return History(compacted)


# -- time --------------------------------------------------------------------------------------------------


def _apply_by_own_clock(self: WatchedMachine, time_ms: int, data: bytes) -> Applied | None:
    server = self._watch.__self__  # type: ignore[attr-defined]
    applied = KvMachine.apply(self, int(server.clock_ms), data)
    self._watch(time_ms, data, applied)
    return applied


def _time_of_each_leader() -> Patch:
    return Log, "last_time_ms", property(lambda self: 0)


def _fast_time(self: Leader, now_ms: float) -> int:
    return self.time_base_ms + 2 * int(now_ms - self.since_ms)


def _time_before_it_led(self: Leader, now_ms: float) -> int:
    """A new leader adds what its process has lived before."""
    return self.time_base_ms + int(now_ms)


def _end_by_any_end(self: Leases, time_ms: int) -> list[int]:
    """A lease that was renewed ends when it would have ended without."""
    ended = []
    for at_ms, lease in sorted(self._ends):
        if at_ms <= time_ms and self._leases.pop(lease, None) is not None:
            ended.append(lease)
    self._ends = sorted(end for end in self._ends if end[0] > time_ms)
    self.due_ms = self._ends[0][0] if self._ends else float("inf")
    return ended


def _nobody_lets_time_pass() -> Patch:
    original = Housekeeping._next_command

    def next_command(self: Housekeeping) -> bytes | None:
        return None if self._server.machine.level > 1 else original(self)

    return Housekeeping, "_next_command", next_command


# -- commands ----------------------------------------------------------------------------------------------


def _take_one_by_one(self: Store, changes: Overlay) -> None:
    """Each at a revision of its own."""
    for key, row in changes.items():
        _take(self, {key: row})


_take = Store.take


def _commit_half(self: Txn) -> None:
    self.commit()


def _leases_stay(self: Txn) -> None:
    pass


def _always_execute(self: KvMachine, token: str, fingerprint: bytes, command: list[Any]) -> Result:
    return self._execute(command)


def _same_for_all(self: KvMachine, token: str, fingerprint: bytes, command: list[Any]) -> Any:
    """Whoever comes with a known token gets what it gave, whatever it was for."""
    known = self.tokens.get(token)
    if known is not None:
        return unpack_result(known.result)
    return _execute_once(self, token, fingerprint, command)


_execute_once = KvMachine._execute_once


def _own_leases_stay(self: KvMachine) -> None:
    self.store.keyless.clear()


# -- what was ----------------------------------------------------------------------------------------------


def _since_and_then(self: History, revision: int) -> Iterator[Change]:
    self.check(revision)
    return self._from(revision)


def _since_the_next(self: History, revision: int) -> Iterator[Change]:
    self.check(revision)
    return self._from(revision + 2)


def _rows_at_all_the_same() -> Patch:
    """Pages of the past don't suffer from what is done to watches."""
    original, since = History.rows_at, History.since

    def rows_at(self: History, *where: Any) -> dict[bytes, bytes | None]:
        broken = History.since
        History.since = since  # type: ignore[method-assign]
        try:
            return original(self, *where)
        finally:
            History.since = broken  # type: ignore[method-assign]

    return History, "rows_at", rows_at


def _get_now(self: Store, key: bytes, revision: int) -> Item | None:
    self._past.check(revision)
    row = self.row(key)
    return None if row is None else item_of(row)


def _deleted_not_seen() -> Patch:
    """A page of the past lacks what has been deleted since."""
    original = History.rows_at

    def rows_at(self: History, *where: Any) -> dict[bytes, bytes | None]:
        return {key: row for key, row in original(self, *where).items() if key not in self._deleted}

    return History, "rows_at", rows_at


ALL: dict[str, tuple[Patch, ...]] = {
    "idempotency tokens left out of snapshots": ((Tokens, "rows", _no_tokens),),
    "leases left out of snapshots": ((Leases, "rows", _no_leases),),
    "history left out of snapshots": (_history_left_out(),),
    "checksum begins anew with a snapshot": ((snapshot_module, "History", _new_checksum),),
    "leases end by a node's own clock": ((WatchedMachine, "apply", _apply_by_own_clock),),
    "cluster time begins anew with a leader": (_time_of_each_leader(),),
    "cluster time runs ahead of all clocks": ((Leader, "cluster_time_ms", _fast_time),),
    "time before it led counts": ((Leader, "cluster_time_ms", _time_before_it_led),),
    "a renewed lease ends as if it were not": ((Leases, "take_due", _end_by_any_end),),
    "nobody lets time pass": (_nobody_lets_time_pass(),),
    "a revision for each part of a transaction": ((Store, "take", _take_one_by_one),),
    "what is undone stays": ((Txn, "abandon", _commit_half),),
    "leases of what is undone stay": ((Txn, "abandon", _leases_stay),),
    "a token is applied each time": ((KvMachine, "_execute_once", _always_execute),),
    "a token's fingerprint is not compared": ((KvMachine, "_execute_once", _same_for_all),),
    "leases of their own outlive their key": ((KvMachine, "_forget_own", _own_leases_stay),),
    "a resumed watch tells of a revision again": (
        (History, "since", _since_and_then),
        _rows_at_all_the_same(),
    ),
    "a resumed watch leaves one revision out": ((History, "since", _since_the_next), _rows_at_all_the_same()),
    "the past is read as it is now": ((Store, "get_at", _get_now),),
    "the past lacks what was deleted": (_deleted_not_seen(),),
}
