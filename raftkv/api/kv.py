"""``/v1/kv``: put, get, head, delete, and pages. The hot path: no middleware, no per-request log."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import orjson
from aiohttp import web

from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency, common_headers
from raftkv.api.limits import Limits
from raftkv.api.params import (
    choice_of,
    condition_of,
    flag_of,
    holds,
    number_of,
    parse_key,
    parse_query,
    text_of,
    timeout_ms,
)
from raftkv.errors import BadRequest, ConditionFailed, KeyNotFound, RaftkvError, TooLarge
from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.results import DeleteResult, Malformed, PutResult, Refused
from raftkv.kv.store import Item, Store, prefix_end
from raftkv.ports import Service

_FORM = "application/x-www-form-urlencoded"  # what curl sends unasked; means nothing
_OCTETS = "application/octet-stream"
_JSON = "application/json"
_MAX_CONTENT_TYPE_CHARS = 256
_MAX_PAGE_ITEMS = 1_000
_MAX_PAGE_BYTES = 4 << 20  # of keys and values; a page ends early there, with a cursor for the rest
_WRITE_PARAMS = ("timeout", "if_revision", "if_absent")
_READ_PARAMS = (*CONSISTENCY_PARAMS, "format")
_LIST_PARAMS = ("prefix", "start", "end", "limit", "cursor", "keys_only", "reverse", *CONSISTENCY_PARAMS)


class KvHandlers:
    """The handlers of one node. ``store`` is the machine's: read between turns, never while one runs."""

    def __init__(self, service: Service, store: Store, limits: Limits) -> None:
        self._service = service
        self._store = store
        self._limits = limits

    # -- writes --------------------------------------------------------------------------------------------

    async def put(self, request: web.BaseRequest, raw_key: str) -> web.Response:
        key = parse_key(raw_key, self._limits.max_key_bytes)
        params, timeout = self._write_params(request)
        condition = condition_of(request.headers, params)
        content_type = self._content_type(request)
        value, timeout = await self._body(request, timeout)
        command = encode_put(key, value, content_type, condition)
        result = await self._service.propose(command, timeout)
        if not isinstance(result, PutResult):
            raise self._refusal(result, condition)
        body = {
            **key_fields(key),
            "revision": result.revision,
            "version": result.version,
            "created": result.created,
        }
        headers = common_headers(self._service, result.revision, _JSON)
        headers["ETag"] = f'"{result.revision}"'
        return web.Response(
            status=201 if result.created else 200, body=orjson.dumps(body) + b"\n", headers=headers
        )

    async def delete(self, request: web.BaseRequest, raw_key: str) -> web.Response:
        key = parse_key(raw_key, self._limits.max_key_bytes)
        params, timeout = self._write_params(request)
        condition = condition_of(request.headers, params)
        _, timeout = await self._body(request, timeout)
        result = await self._service.propose(encode_delete(key, condition), timeout)
        if not isinstance(result, DeleteResult):
            raise self._refusal(result, condition)
        body = {"deleted": result.deleted, "revision": result.revision}
        return web.Response(
            body=orjson.dumps(body) + b"\n", headers=common_headers(self._service, result.revision, _JSON)
        )

    def _write_params(self, request: web.BaseRequest) -> tuple[dict[str, bytes], float]:
        query = request.rel_url.raw_query_string
        params = parse_query(query, _WRITE_PARAMS) if query else {}
        return params, timeout_ms(
            params, self._limits.request_timeout_ms, self._limits.max_request_timeout_ms
        )

    def _content_type(self, request: web.BaseRequest) -> str | None:
        content_type = request.headers.get("Content-Type")
        if content_type is None or content_type == _FORM:
            return None
        if len(content_type) > _MAX_CONTENT_TYPE_CHARS or not content_type.isprintable():
            raise BadRequest(f"Content-Type must be printable, at most {_MAX_CONTENT_TYPE_CHARS} characters")
        return content_type

    async def _body(self, request: web.BaseRequest, left_ms: float) -> tuple[bytes, float]:
        """The body, and what it left of ``left_ms``."""
        limit = self._limits.max_value_bytes
        length = request.content_length
        if length is not None and length > limit:
            raise TooLarge(f"the value has {length} bytes; at most {limit} are allowed")
        if not request.body_exists:
            return b"", left_ms
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if request.content.is_eof():  # as nearly always: it came with the head
                value = request.content.read_nowait()
            else:
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(left_ms / 1000) as waiting:
                    value = await request.read()
                left_ms = max(0.0, ((waiting.when() or 0.0) - loop.time()) * 1000)
        except TimeoutError:
            raise BadRequest(f"the body did not come within {left_ms:.0f} ms") from None
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(f"the body is larger than {self._limits.max_request_bytes} bytes") from None
        except web.RequestPayloadError as error:
            raise BadRequest(f"the body can't be read: {' '.join(str(error).split())[:200]}") from None
        if len(value) > limit:
            raise TooLarge(f"the value has {len(value)} bytes; at most {limit} are allowed")
        return value, left_ms

    def _refusal(self, result: Any, condition: Condition | None) -> RaftkvError:
        if isinstance(result, Refused):
            now = f"is at revision {result.mod_revision}" if result.mod_revision else "doesn't exist"
            wanted = _in_words(condition)
            return ConditionFailed(
                f"the key {now}, but the request wanted {wanted}",
                extra={"mod_revision": result.mod_revision, "revision": result.revision},
            )
        assert isinstance(result, Malformed)
        return BadRequest(
            f"the cluster can't read this command: {result.reason}; are all nodes of one version?"
        )

    # -- reads ---------------------------------------------------------------------------------------------

    async def get(self, request: web.BaseRequest, raw_key: str) -> web.Response:
        key = parse_key(raw_key, self._limits.max_key_bytes)
        query = request.rel_url.raw_query_string
        params = parse_query(query, _READ_PARAMS) if query else {}
        wants_json = choice_of(params, "format", ("raw", "json")) == "json" or (
            "format" not in params and _JSON in request.headers.get("Accept", "")
        )
        condition = condition_of(request.headers, {})
        freshness = await await_consistency(self._service, self._limits, params)
        store = self._store
        item = store.get(key)
        if item is None:
            raise KeyNotFound("there is no such key", extra={"revision": store.revision})
        headers = common_headers(
            self._service, store.revision, _JSON if wants_json else item.content_type or _OCTETS
        )
        headers["ETag"] = f'"{item.mod_revision}"'
        headers["Raftkv-Create-Revision"] = str(item.create_revision)
        headers["Raftkv-Mod-Revision"] = str(item.mod_revision)
        headers["Raftkv-Version"] = str(item.version)
        freshness.note(headers)
        if condition is not None and not holds(condition, item.mod_revision):
            if condition.kind in (ConditionKind.EXISTS, ConditionKind.REVISION_IN):
                raise self._refusal(Refused(item.mod_revision, store.revision), condition)
            del headers["Content-Type"]
            return web.Response(status=304, headers=headers)
        if wants_json:
            return web.Response(body=orjson.dumps(envelope(key, item)) + b"\n", headers=headers)
        headers["X-Content-Type-Options"] = "nosniff"
        return web.Response(body=item.value, headers=headers)

    async def list(self, request: web.BaseRequest) -> web.Response:
        params = parse_query(request.rel_url.raw_query_string, _LIST_PARAMS)
        start, end, reverse = _range_of(params)
        keys_only = flag_of(params, "keys_only")
        limit = number_of(params, "limit", 100, 1, _MAX_PAGE_ITEMS)
        freshness = await await_consistency(self._service, self._limits, params)
        max_bytes = None if keys_only else _MAX_PAGE_BYTES
        page = self._store.page(start, end, limit, reverse=reverse, max_bytes=max_bytes)
        items = [key_fields(key) if keys_only else envelope(key, item) for key, item in page.items]
        cursor = _encode_cursor(page.items[-1][0], reverse=reverse) if page.more else None
        body = {"items": items, "cursor": cursor, "revision": self._store.revision}
        headers = common_headers(self._service, self._store.revision, _JSON)
        freshness.note(headers)
        return web.Response(body=orjson.dumps(body) + b"\n", headers=headers)


def key_fields(key: bytes) -> dict[str, str]:
    """``{"key": text}``, or ``{"key_base64": ...}`` where the key isn't UTF-8."""
    return _text_or_base64("key", key)


def envelope(key: bytes, item: Item) -> dict[str, Any]:
    """A key with all that is known of it, as JSON types."""
    return {
        **key_fields(key),
        **_text_or_base64("value", item.value),
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
        "version": item.version,
        "content_type": item.content_type,
    }


def _text_or_base64(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _in_words(condition: Condition | None) -> str:
    if condition is None:
        return "something else"
    revisions = " or ".join(str(revision or "none (absent)") for revision in condition.revisions)
    match condition.kind:
        case ConditionKind.EXISTS:
            return "it to exist"
        case ConditionKind.ABSENT:
            return "it absent"
        case ConditionKind.REVISION_IN:
            return f"revision {revisions}" if revisions else "an entity tag that no revision has"
        case ConditionKind.REVISION_NOT_IN:
            return f"any revision but {revisions}"


def _range_of(params: dict[str, bytes]) -> tuple[bytes, bytes | None, bool]:
    """The half-open range of keys that a listing asks for, narrowed by its cursor, and its direction."""
    if "prefix" in params and ("start" in params or "end" in params):
        raise BadRequest("give either prefix, or start and end")
    reverse = flag_of(params, "reverse")
    prefix = params.get("prefix", b"")
    start, end = params.get("start", prefix), params.get("end", prefix_end(prefix))
    if (cursor := text_of(params, "cursor")) is not None:
        key, was_reverse = _decode_cursor(cursor)
        if was_reverse != reverse:
            raise BadRequest("the cursor belongs to a listing in the other direction")
        if reverse:
            end = key if end is None else min(end, key)
        else:
            start = max(start, key + b"\0")
    return start, end, reverse


def _encode_cursor(last_key: bytes, *, reverse: bool) -> str:
    return base64.urlsafe_b64encode((b"r" if reverse else b"f") + last_key).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[bytes, bool]:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if data[:1] not in (b"r", b"f"):
        raise BadRequest("the cursor isn't one that this cluster gave; begin again without it")
    return data[1:], data[:1] == b"r"
