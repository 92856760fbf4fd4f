"""raftkv's own state machine as the sequential truth: what must come of actions, one after the other."""

from __future__ import annotations

from raftkv.kv import commands, results
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.kv.store import Item as StoreItem
from raftkv.verify.history import (
    Action,
    Cas,
    Condition,
    Delete,
    Deleted,
    Get,
    Item,
    List,
    Listed,
    Put,
    Read,
    Refused,
    Result,
    Written,
)


class Machine:
    def __init__(self) -> None:
        self._machine = KvMachine()
        self._seq = 0

    def do(self, action: Action) -> Result:
        store = self._machine.store
        match action:
            case Put(key, value, condition):
                return self._write(commands.encode_put(key, value, None, _condition(condition)))
            case Delete(key, condition):
                return self._write(commands.encode_delete(key, _condition(condition)))
            case Get(key):
                item = store.get(key)
                return Read(None if item is None else _item(item), store.revision)
            case List(start, end, limit, reverse):
                page = store.page(start, end, limit, reverse=reverse)
                return Listed(tuple((k, _item(i)) for k, i in page.items), page.more, store.revision)
            case Cas():
                raise AssertionError("raftkv has none")

    def _write(self, command: bytes) -> Result:
        self._seq += 1
        batch = BatchId("n1", 1, self._seq, 1)
        applied = self._machine.apply(0, self._machine.seal(batch, [command]))
        assert applied is not None
        assert applied.results is not None
        match applied.results[0]:
            case results.PutResult(revision, version):
                return Written(revision, version)
            case results.DeleteResult(deleted, revision):
                return Deleted(deleted, revision)
            case results.Refused(mod, revision):
                return Refused(mod, revision)
        raise AssertionError(applied)


def _item(item: StoreItem) -> Item:
    return Item(item.value, item.create_revision, item.mod_revision, item.version)


def _condition(condition: Condition | None) -> commands.Condition | None:
    if condition is None:
        return None
    return commands.Condition(commands.ConditionKind[condition.kind.name], condition.revisions)
