"""The dict-backed state machine: commands in log order in, results out. Pure: no nodes, no time."""

from raftkv.kv.machine import Applied, KvMachine, StateMachine
from raftkv.kv.store import Item, Store

__all__ = ["Applied", "Item", "KvMachine", "StateMachine", "Store"]
