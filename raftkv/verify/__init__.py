"""Judges a cluster from outside, by what clients asked and were answered. Imports nothing of ours."""

from __future__ import annotations

import time
from collections.abc import Collection

from raftkv.verify import linearizability, revisions
from raftkv.verify.history import History
from raftkv.verify.jsonl import BadHistory, read_history, write_history
from raftkv.verify.models import KeyValue, Model, Register
from raftkv.verify.verdict import Answer, Verdict

__all__ = [
    "Answer",
    "BadHistory",
    "History",
    "KeyValue",
    "Model",
    "Register",
    "Verdict",
    "check",
    "read_history",
    "write_history",
]


def check(
    history: History,
    model: Model | None = None,
    *,
    timeout_s: float = 60.0,
    others: Collection[int] = frozenset(),
) -> Verdict:
    """All that is known to check. By revisions first: that is quick, sees all keys at once, and says best
    what is wrong. Then the search key by key. With a ``model`` of one's own,
    only the search. ``others``: the revisions that are known to be of writers of other keys, who aren't in
    the history.

    Raises ValueError where the model doesn't know an operation.
    """
    began = time.monotonic()
    if model is None:
        verdict = revisions.check(history, others)
        if not verdict:
            return verdict
        taken = {o.revision for o in history if o.changed and o.revision is not None}
        model = KeyValue(taken.union(others))
    return linearizability.check(history, model, timeout_s=max(0.0, timeout_s - (time.monotonic() - began)))
