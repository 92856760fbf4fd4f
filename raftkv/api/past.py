"""``?revision=``: which one is read, and that it can be."""

from __future__ import annotations

from collections.abc import Mapping

from raftkv.api.params import number_of
from raftkv.errors import FutureRevision, RevisionCompacted
from raftkv.kv.history import Compacted
from raftkv.kv.store import Store

_MAX_REVISION = (1 << 63) - 1


def revision_param(params: Mapping[str, bytes]) -> int:
    """0: none is given."""
    return number_of(params, "revision", 0, 1, _MAX_REVISION) if "revision" in params else 0


def check_not_future(store: Store, revision: int) -> None:
    """Raises ``FutureRevision``. To be asked when the node may answer, not before."""
    if revision > store.revision:
        raise FutureRevision(
            f"revision {revision} is asked for, but this node is at {store.revision}",
            extra={"revision": store.revision},
        )


def compacted(error: Compacted) -> RevisionCompacted:
    """What to tell a client."""
    return RevisionCompacted(
        f"{error}: that is the oldest that can still be read", extra={"oldest": error.oldest}
    )
