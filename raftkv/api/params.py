"""What a request says besides its body: the key, query parameters, durations, conditions.

Strict: a typo is a 400, never a silently different request. Raises ``errors.BadRequest`` or
``errors.TooLarge``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from multidict import MultiMapping

from raftkv.errors import BadRequest, TooLarge
from raftkv.kv.commands import Condition, ConditionKind
from raftkv.kv.lease import MAX_TTL_MS, MIN_TTL_MS

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
# An entity tag and what separates it from the next (RFC 9110 section 5.6.1: elements of a list may be empty).
_ETAG = re.compile(r'[ \t,]*(W/)?"([^"]*)"[ \t]*(?:,[ \t,]*|$)')
_NUMBER = re.compile(r"[0-9]{1,18}")
_REVISION = re.compile(r"[1-9][0-9]{0,17}")
_INSIDE_SHARE = 0.95
_MAX_CONTENT_TYPE_CHARS = 256
_TRUTH = {"true": True, "1": True, "": True, "false": False, "0": False}


def percent_decode(text: str, what: str) -> bytes:
    """``text`` as the bytes it stands for."""
    if "%" in text and _BAD_PERCENT.search(text):
        raise BadRequest(f"{what} has a % that isn't followed by two hex digits; write a literal % as %25")
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def parse_key(raw: str, max_key_bytes: int) -> bytes:
    """The key in a path, after ``/v1/kv/``."""
    key = percent_decode(raw, "the key")
    if not key:
        raise BadRequest("the key is empty; use /v1/kv/{key}, or GET /v1/kv to list keys")
    check_key(key, max_key_bytes)
    return key


def check_key(key: bytes, max_key_bytes: int) -> None:
    """Raises unless a client may use ``key``: those that begin with a NUL byte are the store's own."""
    if len(key) > max_key_bytes:
        raise TooLarge(f"the key has {len(key)} bytes; at most {max_key_bytes} are allowed")
    if not key:
        raise BadRequest("the key is empty")
    if not key[0]:
        raise BadRequest("a key can't begin with a NUL byte")


def check_content_type(content_type: object) -> None:
    """Raises unless it can be kept, and sent as a header."""
    if (
        not isinstance(content_type, str)
        or len(content_type) > _MAX_CONTENT_TYPE_CHARS
        or not content_type.isprintable()
    ):
        raise BadRequest(f"a content type must be printable, at most {_MAX_CONTENT_TYPE_CHARS} characters")


def parse_query(raw: str, allowed: tuple[str, ...]) -> dict[str, bytes]:
    """A query string as bytes by name. An unknown or repeated name is refused."""
    params: dict[str, bytes] = {}
    for part in filter(None, raw.split("&")):
        name, _, value = part.partition("=")
        if name not in allowed:
            raise BadRequest(
                f"unknown query parameter {name!r}; this request takes {', '.join(allowed) or 'none'}"
            )
        if name in params:
            raise BadRequest(f"query parameter {name!r} is given twice")
        params[name] = percent_decode(value.replace("+", " "), f"query parameter {name!r}")
    return params


def text_of(params: Mapping[str, bytes], name: str) -> str | None:
    value = params.get(name)
    return None if value is None else value.decode("utf-8", "replace")


def flag_of(params: Mapping[str, bytes], name: str) -> bool:
    text = text_of(params, name)
    if text is None:
        return False
    if text not in _TRUTH:
        raise BadRequest(f"{name} must be true or false, got {text!r}")
    return _TRUTH[text]


def choice_of(params: Mapping[str, bytes], name: str, choices: tuple[str, ...]) -> str:
    """One of ``choices``; the first is the default."""
    text = text_of(params, name)
    if text is None:
        return choices[0]
    if text not in choices:
        raise BadRequest(f"{name} must be one of {', '.join(choices)}, got {text!r}")
    return text


def number_of(params: Mapping[str, bytes], name: str, default: int, low: int, high: int) -> int:
    text = text_of(params, name)
    if text is None:
        return default
    if _NUMBER.fullmatch(text) is None or not low <= int(text) <= high:
        raise BadRequest(f"{name} must be a whole number from {low} to {high}, got {text!r}")
    return int(text)


def timeout_ms(params: Mapping[str, bytes], default_ms: float, max_ms: float) -> float:
    """How long this request may wait inside, in milliseconds: ``timeout=`` less what the way back takes.

    A client that gives up at its timeout should have our answer, which says what became of its write, before.
    """
    asked_ms = duration_of(params, "timeout", max_ms)
    return (default_ms if asked_ms is None else asked_ms) * _INSIDE_SHARE


def duration_of(params: Mapping[str, bytes], name: str, max_ms: float) -> float | None:
    """A duration in milliseconds, more than 0."""
    text = text_of(params, name)
    if text is None:
        return None
    found_ms = duration_ms(text, name)
    if not 0 < found_ms <= max_ms:
        raise BadRequest(f"{name} must be more than 0 and at most {max_ms:.0f}ms, got {text!r}")
    return found_ms


def duration_ms(text: object, name: str) -> int:
    """``500ms``, ``30s``, ``5m``, ``2h``."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise BadRequest(f"{name} must be a duration like 500ms, 30s or 5m, got {text!r}")
    return int(match[1]) * _UNIT_MS[match[2]]


def ttl_ms(text: object) -> int:
    """A lease's time to live."""
    found = duration_ms(text, "ttl")
    if not MIN_TTL_MS <= found <= MAX_TTL_MS:
        raise BadRequest(f"ttl must be from {MIN_TTL_MS}ms to {MAX_TTL_MS // 3_600_000}h, got {text!r}")
    return found


def condition_of(headers: MultiMapping[str], params: Mapping[str, bytes]) -> Condition | None:
    """The one condition of a request (RFC 9110 section 13, or its query form), or None."""
    found: list[Condition] = []
    if (header := _list_header(headers, "If-Match")) is not None:
        if header.strip() == "*":
            found.append(Condition(ConditionKind.EXISTS))
        else:  # If-Match compares strongly: a weak tag never matches
            found.append(Condition(ConditionKind.REVISION_IN, _revisions(header, "If-Match", weak=False)))
    if (header := _list_header(headers, "If-None-Match")) is not None:
        if header.strip() == "*":
            found.append(Condition(ConditionKind.ABSENT))
        else:
            revisions = _revisions(header, "If-None-Match", weak=True)
            found.append(Condition(ConditionKind.REVISION_NOT_IN, revisions))
    if "if_revision" in params:
        revision = number_of(params, "if_revision", 0, 0, 10**18)
        found.append(Condition(ConditionKind.REVISION_IN, (revision,)))
    if flag_of(params, "if_absent"):
        found.append(Condition(ConditionKind.ABSENT))
    if len(found) > 1:
        raise BadRequest("give one condition: If-Match, If-None-Match, if_revision or if_absent")
    return found[0] if found else None


def _list_header(headers: MultiMapping[str], name: str) -> str | None:
    """A header that is a list; it may come in several lines (RFC 9110 section 5.3)."""
    return ", ".join(headers.getall(name)) if name in headers else None


def holds(condition: Condition, mod_revision: int) -> bool:
    """Whether ``condition`` holds of a key at ``mod_revision`` (0: absent)."""
    match condition.kind:
        case ConditionKind.EXISTS:
            return mod_revision != 0
        case ConditionKind.ABSENT:
            return mod_revision == 0
        case ConditionKind.REVISION_IN:
            return mod_revision in condition.revisions
        case ConditionKind.REVISION_NOT_IN:
            return mod_revision not in condition.revisions


def _revisions(header: str, name: str, *, weak: bool) -> tuple[int, ...]:
    """The revisions in a list of entity tags; a tag that is no revision of ours matches nothing."""
    revisions = []
    position = 0
    while position < len(header) or not position:
        match = _ETAG.match(header, position)
        if match is None:
            raise BadRequest(f'{name} must be * or a list of quoted revisions like "42", got {header!r}')
        # NB: 0 stands for "absent" in a condition; no entity tag means that.
        if _REVISION.fullmatch(match[2]) and (weak or not match[1]):
            revisions.append(int(match[2]))
        position = match.end()
    return tuple(revisions)
