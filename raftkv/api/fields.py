"""What the handlers of leases, locks, elections and services share: the fields of small JSON bodies, names in
paths, and idempotency keys.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from raftkv.api.body import small_body
from raftkv.api.params import percent_decode
from raftkv.errors import BadRequest, TooLarge
from raftkv.kv.lease import MAX_TTL_MS, MIN_TTL_MS

MAX_LEASE = (1 << 53) - 1  # every JSON reader has that one right
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_MAX_TOKEN_CHARS = 256


async def document(request: web.BaseRequest, within_ms: float, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The body, a JSON object with none but ``allowed``; {} where there is none."""
    body = await small_body(request, within_ms)
    try:
        found = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.keys() - set(allowed):
        raise BadRequest(f"the body must be a JSON object; it may have {', '.join(allowed)}")
    return found


def duration_ms(value: Any, name: str, low_ms: int, high_ms: int) -> int:
    """``500ms``, ``30s``, ``5m``, ``2h``."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise BadRequest(f"{name} must be a duration like 500ms, 30s or 5m, got {value!r}")
    found = int(match[1]) * _UNIT_MS[match[2]]
    if not low_ms <= found <= high_ms:
        raise BadRequest(f"{name} must be from {low_ms}ms to {high_ms}ms, got {value!r}")
    return found


def ttl_of(body: Mapping[str, Any]) -> int:
    """Its ``ttl`` in ms."""
    return duration_ms(body.get("ttl"), "ttl", MIN_TTL_MS, MAX_TTL_MS)


def lease_or_ttl(body: Mapping[str, Any]) -> tuple[int, int]:
    """(lease, 0) or (0, ttl in ms), of which a body has one."""
    if ("lease" in body) == ("ttl" in body):
        raise BadRequest('give either "ttl", like "10s", or "lease", the id of one that was granted')
    return (0, ttl_of(body)) if "ttl" in body else (lease_id(body["lease"]), 0)


def lease_id(value: Any) -> int:
    """Of a JSON number, or of digits in a path or query."""
    if isinstance(value, bytes):
        value = int(value) if value.isdigit() and len(value) < 20 else None
    if type(value) is not int or not 0 < value <= MAX_LEASE:
        raise BadRequest(f"a lease's id is a whole number from 1 to {MAX_LEASE}")
    return value


def value_of(body: Mapping[str, Any]) -> bytes:
    """Its ``value`` or ``value_base64``; b"" where it has neither."""
    if "value" in body and "value_base64" in body:
        raise BadRequest("give value or value_base64, not both")
    text, encoded = body.get("value", ""), body.get("value_base64", "")
    if not isinstance(text, str) or not isinstance(encoded, str):
        raise BadRequest("value must be text; what isn't goes into value_base64")
    try:
        return text.encode() or base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("value_base64 isn't base64, or value is no valid text") from None


def name_of(raw: str, what: str, max_bytes: int) -> bytes:
    """A name in a path, percent-encoded there."""
    name = percent_decode(raw, f"the {what}")
    if not name or b"\x00" in name or "/" in raw:
        raise BadRequest(f"the {what} must not be empty, nor hold a NUL; write a / in it as %2F")
    if len(name) > max_bytes:
        raise TooLarge(f"the {what} has {len(name)} bytes; at most {max_bytes} are allowed")
    return name


def idempotency_key(request: web.BaseRequest) -> str | None:
    token = request.headers.get("Idempotency-Key")
    if token is not None and not (0 < len(token) <= _MAX_TOKEN_CHARS and token.isprintable()):
        raise BadRequest(f"Idempotency-Key must be printable, 1 to {_MAX_TOKEN_CHARS} characters")
    return token
