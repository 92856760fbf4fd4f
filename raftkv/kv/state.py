"""All that a machine holds: what a snapshot is of."""

from __future__ import annotations

from raftkv.kv.lease import Leases
from raftkv.kv.levels import OLDEST_LEVEL
from raftkv.kv.session import Sessions
from raftkv.kv.store import Store
from raftkv.kv.token import Tokens


class State:
    """An empty one, of the oldest level."""

    def __init__(self) -> None:
        self.store = Store()
        self.leases = Leases()
        self.tokens = Tokens()
        self.sessions = Sessions()
        self.level = OLDEST_LEVEL
        self.time_ms = 0  # cluster time of the last batch
