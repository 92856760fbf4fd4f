"""The dict-backed state machine: commands in log order in, results out. Pure: no nodes, no time."""

from raftkv.kv.machine import Applied, Exporting, KvMachine, Restoring, StateMachine
from raftkv.kv.store import Item, Store

__all__ = ["Applied", "Exporting", "Item", "KvMachine", "Restoring", "StateMachine", "Store"]
