"""Errors as a client raises them: the same classes that the server has (``raftkv.errors``), found by their
``code``, and those that only a client can meet. Each says in ``outcome`` what became of the request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raftkv.errors import Outcome, RaftkvError

_KNOWN = frozenset({"type", "title", "status", "detail", "code", "outcome", "leader", "retry_after_ms"})


class Unreachable(RaftkvError):
    """No node gave an answer in time. ``outcome`` says whether a node may have got the request."""

    code, title = "unreachable", "No node answered"


class BadAnswer(RaftkvError):
    """Who answered is no raftkv node, or one of another kind than this client knows."""

    code, title = "bad_answer", "Not an answer of a raftkv node"


class LeaseLost(RaftkvError):
    """A lease has ended, or may have: it could not be kept alive in time. What depended on it is gone."""

    code, title = "lease_lost", "The lease has ended"


class LockLost(LeaseLost):
    """Somebody else may hold the lock by now."""

    code, title = "lock_lost", "The lock is lost"


def error_from(document: Mapping[str, Any], status: int, who: str) -> RaftkvError:
    """The error that a problem document (RFC 9457) tells of; of an answer without one, what can be said."""
    code = str(document.get("code", ""))
    made = _classes().get(code, RaftkvError)
    detail = document.get("detail") or document.get("title")
    fallback = f"{who} answered {status} without saying why: is it a raftkv node?"
    leader, retry_after_ms = document.get("leader"), document.get("retry_after_ms")
    # What doesn't say what became of it (a proxy's 502, say) leaves that open.
    unsaid = Outcome.UNKNOWN if status >= 500 else Outcome.NOT_APPLIED
    outcome = document.get("outcome", unsaid)
    error = made(
        str(detail or fallback),
        outcome=Outcome.NOT_APPLIED if outcome == Outcome.NOT_APPLIED else Outcome.UNKNOWN,
        leader=leader if isinstance(leader, str) else None,
        retry_after_ms=retry_after_ms if isinstance(retry_after_ms, int) else None,
        extra={name: value for name, value in document.items() if name not in _KNOWN},
    )
    if made is RaftkvError:
        error.status, error.code = status, code or "bad_answer"
    return error


def read_error(status: int, content_type: str, body: bytes, who: str) -> RaftkvError:
    """The error of an answer whose status says that it is one."""
    try:
        document = json.loads(body) if "json" in content_type else {}
    except ValueError:
        document = {}
    return error_from(document if isinstance(document, dict) else {}, status, who)


def _classes() -> dict[str, type[RaftkvError]]:
    found: dict[str, type[RaftkvError]] = {}
    waiting = RaftkvError.__subclasses__()
    while waiting:
        each = waiting.pop()
        found.setdefault(each.code, each)
        waiting += each.__subclasses__()
    return found
