"""``/v1/kv`` without a key: pages of a range, and its deletion."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.body import whole_body
from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency, common_headers
from raftkv.api.envelope import envelope
from raftkv.api.form import Fields, form_of
from raftkv.api.limits import Limits
from raftkv.api.operations import key_range
from raftkv.api.params import flag_of, number_of, parse_query, text_of, timeout_ms
from raftkv.api.past import check_not_future, compacted, revision_param
from raftkv.api.writes import Writes
from raftkv.errors import BadRequest
from raftkv.kv.commands import encode_delete_range
from raftkv.kv.history import Compacted
from raftkv.kv.machine import KvMachine
from raftkv.kv.view import Listing, View
from raftkv.ports import Service

_MAX_PAGE_ITEMS = 1_000
_MAX_PAGE_BYTES = 4 << 20  # of keys and values; a page ends early there, with a cursor for the rest
_RANGE_PARAMS = ("prefix", "start", "end")
_LIST_PARAMS = (
    *_RANGE_PARAMS,
    "limit",
    "cursor",
    "keys_only",
    "reverse",
    "delimiter",
    "count",
    "revision",
    *CONSISTENCY_PARAMS,
)


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where a page run goes on. All its pages are of one revision."""

    bound: bytes  # the next page's start, or in reverse its end
    reverse: bool
    revision: int  # 0: of now, for the machine keeps nothing of the past yet

    def encode(self) -> str:
        kind = b"R" if self.reverse else b"F"
        data = kind + self.revision.to_bytes(8, "big") + self.bound
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    @staticmethod
    def decode(text: str) -> _Cursor:
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if data[:1] not in (b"F", b"R") or len(data) < 9:
            raise BadRequest("the cursor isn't one that this cluster gave; begin again without it")
        return _Cursor(data[9:], data[:1] == b"R", int.from_bytes(data[1:9], "big"))


class PageHandlers:
    """The handlers of one node. ``machine`` is read between turns, never while one runs."""

    def __init__(self, service: Service, machine: KvMachine, limits: Limits, writes: Writes) -> None:
        self._service = service
        self._store = machine.store
        self._limits = limits
        self._writes = writes

    async def list(self, request: web.BaseRequest) -> Answer:
        params = parse_query(request.rel_url.raw_query_string, _LIST_PARAMS)
        start, end = _range_of(params, or_all=True)
        reverse, keys_only = flag_of(params, "reverse"), flag_of(params, "keys_only")
        wants_count = flag_of(params, "count")
        limit = number_of(params, "limit", 100, 0 if wants_count else 1, _MAX_PAGE_ITEMS)
        cursor = _cursor_of(params, reverse=reverse)
        asked = revision_param(params) or (cursor.revision if cursor else 0)
        if cursor is not None and asked != cursor.revision:
            raise BadRequest(f"the cursor belongs to a listing of revision {cursor.revision}")
        freshness = await await_consistency(self._service, self._limits, params)

        store = self._store
        revision = asked or store.revision
        check_not_future(store, revision)
        try:
            found = self._page(params, (start, end), cursor, revision, limit=limit, reverse=reverse)
            count = View(store, revision, start, end).count() if wants_count else None
        except Compacted as error:
            raise compacted(error) from None
        form = form_of(request.headers)
        next_cursor: str | None = None
        if found.rest is not None:
            kept = revision if store.history is not None else 0
            next_cursor = _Cursor(found.rest, reverse, kept).encode()
        body: dict[str, Any] = {
            "items": _documents(found, form.fields, keys_only=keys_only),
            "cursor": next_cursor,
            "revision": revision,
        }
        if "delimiter" in params:
            body["prefixes"] = [_prefix(folder, form.fields) for folder in found.folders]
        if count is not None:
            body["count"] = count
        headers = common_headers(self._service, store.revision, form.content_type)
        freshness.note(headers)
        return Answer(headers, form.dump(body))

    def _page(
        self,
        params: Mapping[str, bytes],
        keys: tuple[bytes, bytes | None],
        cursor: _Cursor | None,
        revision: int,
        *,
        limit: int,
        reverse: bool,
    ) -> Listing:
        if not limit:
            return Listing([], [], None)
        start, end = keys
        if cursor is not None and reverse:
            end = cursor.bound if end is None else min(end, cursor.bound)
        elif cursor is not None:
            start = max(start, cursor.bound)
        return View(self._store, revision, start, end).page(
            limit,
            reverse=reverse,
            delimiter=params.get("delimiter", b""),
            prefix=params.get("prefix", b""),
            max_bytes=None if flag_of(params, "keys_only") else _MAX_PAGE_BYTES,
        )

    async def delete(self, request: web.BaseRequest) -> Answer:
        params = parse_query(request.rel_url.raw_query_string, (*_RANGE_PARAMS, "timeout"))
        start, end = _range_of(params, or_all=False)
        limits = self._limits
        left_ms = timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)
        _, left_ms = await whole_body(request, limits.max_request_bytes, left_ms, "the body")
        command = encode_delete_range(start, end)
        result = await self._writes.propose(request.headers, command, left_ms, feature="transactions")
        form = form_of(request.headers)
        body = {"deleted": result.deleted, "revision": result.revision}
        headers = common_headers(self._service, result.revision, form.content_type)
        return Answer(headers, form.dump(body))


def _range_of(params: Mapping[str, bytes], *, or_all: bool) -> tuple[bytes, bytes | None]:
    prefix = params.get("prefix")
    if or_all and not any(name in params for name in _RANGE_PARAMS):
        prefix = b""
    return key_range(prefix, params.get("start"), params.get("end"))


def _cursor_of(params: Mapping[str, bytes], *, reverse: bool) -> _Cursor | None:
    text = text_of(params, "cursor")
    if text is None:
        return None
    cursor = _Cursor.decode(text)
    if cursor.reverse != reverse:
        raise BadRequest("the cursor belongs to a listing in the other direction")
    return cursor


def _documents(found: Listing, fields: Fields, *, keys_only: bool) -> list[dict[str, Any]]:
    if keys_only:
        return [fields("key", key) for key, _ in found.items]
    return [envelope(key, item, fields) for key, item in found.items]


def _prefix(folder: bytes, fields: Fields) -> Any:
    """As text or bytes; in JSON what isn't UTF-8 as ``{"prefix_base64": ...}``."""
    document = fields("prefix", folder)
    return document.get("prefix", document)
