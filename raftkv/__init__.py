"""raftkv: a replicated, durable, linearizable key-value store in Python.

What programs use is named here and imported when it is first asked for: ``import raftkv`` alone stays light.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# name -> module. NB: __init__.pyi says the same to type checkers; tests/sdk/test_names.py compares them.
_NAMES = {
    name: module
    for module, names in {
        "raftkv.sdk.client": ("AsyncClient",),
        "raftkv.sdk.sync": ("Client",),
        "raftkv.sdk.operations": (
            "CreateRevision",
            "Delete",
            "DeleteRange",
            "Get",
            "GetRange",
            "Increment",
            "LeaseOf",
            "ModRevision",
            "Put",
            "Txn",
            "Value",
            "Version",
            "absent",
            "exists",
        ),
        "raftkv.sdk.results": ("Event", "Instance", "Item", "ReadResult"),
        "raftkv.server.embedding": ("Node", "node_config"),
        "raftkv.config": ("Address", "Config"),
        "raftkv.sdk.errors": ("LeaseLost", "LockLost", "Unreachable"),
        "raftkv.errors": (
            "BadRequest",
            "ChangeRefused",
            "ConditionFailed",
            "FutureRevision",
            "KeyNotFound",
            "LeaseExists",
            "LockHeld",
            "MethodNotAllowed",
            "NoQuorum",
            "NoSuccessor",
            "NoSuchLease",
            "NotANumber",
            "NotFound",
            "NotHolder",
            "NotReached",
            "NumberTooLarge",
            "Outcome",
            "QuotaExceeded",
            "RaftkvError",
            "RevisionCompacted",
            "ShuttingDown",
            "SnapshotFailed",
            "StartError",
            "TimedOut",
            "TokenReused",
            "TooLarge",
            "TooManyLeases",
            "TooManyRequests",
            "TooStale",
            "UpgradeUnfinished",
            "UriTooLong",
        ),
    }.items()
    for name in names
}


__all__ = ["__version__", *_NAMES]  # noqa: PLE0604 (all of them are)


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
