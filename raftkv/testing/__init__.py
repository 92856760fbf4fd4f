"""For tests of programs that use raftkv: a real cluster on this machine, and pytest fixtures (``plugin``).

Nodes are processes with real disks and sockets, so a test can kill one as it would die in earnest. The
plugin is loaded by every pytest where raftkv is installed: nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftkv.testing.cluster import LocalCluster, LocalNode

__all__ = ["LocalCluster", "LocalNode"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("raftkv.testing.cluster"), name)
