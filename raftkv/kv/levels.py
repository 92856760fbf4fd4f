"""What this release's machine understands, as one number: its *level*.

A command that an older machine doesn't know would be nothing to it, and the nodes' machines would differ. So
a new command, or a new meaning of one, raises ``MACHINE_LEVEL``, and is named in ``FEATURES`` with the level
that brought it; it is asked for only where all members are at that level (``server/levels.py`` says it).
"""

from __future__ import annotations

from collections.abc import Mapping

OLDEST_LEVEL = 1  # of a release that doesn't say
MACHINE_LEVEL = 2

FEATURES: Mapping[str, int] = {"history": 2, "transactions": 2, "leases": 2, "tokens": 2}
"""The level that brought each command or meaning; what isn't named here was there from the first level on."""
