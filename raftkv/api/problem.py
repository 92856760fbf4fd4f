"""Errors as the client sees them: RFC 9457 problem details, with ``code`` and ``outcome``."""

from __future__ import annotations

import orjson

from raftkv.api.answer import Answer
from raftkv.errors import RaftkvError

PROBLEM_JSON = "application/problem+json"


def problem(error: RaftkvError) -> Answer:
    """The response for ``error``. ``Retry-After`` only where a retry can't repeat what already happened."""
    body: dict[str, object] = {
        "type": f"urn:raftkv:error:{error.code}",
        "title": error.title,
        "status": error.status,
        # What a client sent may be quoted there, and needn't be text.
        "detail": error.detail.encode("utf-8", "backslashreplace").decode(),
        "code": error.code,
        "outcome": error.outcome.value,
    }
    headers = {**error.headers, "Content-Type": PROBLEM_JSON}
    if error.leader is not None:
        body["leader"] = error.leader
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
        headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    body |= error.extra
    if allow := error.extra.get("allow"):
        headers["Allow"] = str(allow)
    return Answer(headers, orjson.dumps(body) + b"\n", error.status)
