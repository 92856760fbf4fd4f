"""What the handlers of leases, locks, elections and services share: small bodies and their fields, names in
paths, and answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.body import small_body
from raftkv.api.consistency import Freshness, common_headers
from raftkv.api.form import bytes_of, form_of, parse_document
from raftkv.api.params import percent_decode, ttl_ms
from raftkv.errors import BadRequest, MethodNotAllowed, TooLarge
from raftkv.kv.lease import MAX_ID
from raftkv.ports import Service


async def document(request: web.BaseRequest, within_ms: float, allowed: tuple[str, ...]) -> dict[str, Any]:
    """The body, an object with none but ``allowed``; {} where there is none."""
    body = await small_body(request, within_ms)
    found = parse_document(request.headers, body) if body.strip() else {}
    if found.keys() - set(allowed):
        raise BadRequest(f"the body must be an object; it may have {', '.join(allowed) or 'no fields'}")
    return found


def answer(
    request: web.BaseRequest,
    service: Service,
    found: dict[str, Any],
    revision: int,
    status: int = 200,
    *,
    freshness: Freshness | None = None,
) -> Answer:
    """``freshness``: of a read's."""
    form = form_of(request.headers)
    headers = common_headers(service, revision, form.content_type)
    if freshness is not None:
        freshness.note(headers)
    return Answer(headers, form.dump(found), status)


def lease_or_ttl(body: Mapping[str, Any]) -> tuple[int, int]:
    """(lease, 0) or (0, ttl in ms), of which a body has one."""
    if ("lease" in body) == ("ttl" in body):
        raise BadRequest('give either "ttl", like "10s", or "lease", the id of one that was granted')
    return (0, ttl_ms(body["ttl"])) if "ttl" in body else (lease_id(body["lease"]), 0)


def lease_id(value: Any, most: int = MAX_ID) -> int:
    """Of a number, or of the digits of one in a path or query."""
    if isinstance(value, bytes):
        value = int(value) if value.isdigit() and len(value) < 20 else None
    if type(value) is not int or not 0 < value <= most:
        raise BadRequest(f"a lease's id is a whole number from 1 to {most}")
    return value


def value_of(body: Mapping[str, Any]) -> bytes:
    """Its ``value``; b"" where it has none."""
    return bytes_of(body, "value") or b""


def name_of(raw: str, what: str, max_bytes: int) -> bytes:
    """A name in a path, percent-encoded there."""
    if "/" in raw:
        raise BadRequest(f"the {what} is one part of the path; write a / in it as %2F")
    return checked_name(percent_decode(raw, f"the {what}"), what, max_bytes)


def checked_name(name: bytes, what: str, max_bytes: int) -> bytes:
    if not name or b"\x00" in name:
        raise BadRequest(f"the {what} must not be empty, nor hold a NUL")
    if len(name) > max_bytes:
        raise TooLarge(f"the {what} has {len(name)} bytes; at most {max_bytes} are allowed")
    return name


def not_allowed(method: str, methods: Iterable[str]) -> MethodNotAllowed:
    allowed = ", ".join(sorted(methods))
    return MethodNotAllowed(f"{method} isn't possible here; use {allowed}", extra={"allow": allowed})
