"""``/v1/kv/{key}``: put, get, head and delete. The hot path: no middleware, no per-request log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web
from multidict import MultiMapping

from raftkv.api import poll
from raftkv.api.answer import Answer
from raftkv.api.body import whole_body
from raftkv.api.consistency import (
    CONSISTENCY_PARAMS,
    Freshness,
    await_consistency,
    common_headers,
    common_lines,
    type_line,
)
from raftkv.api.envelope import envelope, key_fields
from raftkv.api.form import IN_JSON, IN_MSGPACK, JSON, MSGPACK, Form
from raftkv.api.limits import Limits
from raftkv.api.params import (
    check_content_type,
    choice_of,
    condition_of,
    holds,
    number_of,
    parse_key,
    parse_query,
    text_of,
    timeout_ms,
    ttl_ms,
)
from raftkv.api.past import check_not_future, compacted, revision_param
from raftkv.api.writes import TOKEN_HEADER, Writes, refusal
from raftkv.errors import BadRequest, ConditionFailed, KeyNotFound, RaftkvError
from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.history import Compacted
from raftkv.kv.lease import MAX_ID
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import DeleteResult, PutResult, Refused
from raftkv.kv.store import Item
from raftkv.ports import Service

_FORM = "application/x-www-form-urlencoded"  # what curl sends unasked; means nothing
_OCTETS = "application/octet-stream"
_JSON_LINE = type_line(JSON)
_WRITE_PARAMS = ("timeout", "if_revision", "if_absent")
_PUT_PARAMS = (*_WRITE_PARAMS, "ttl", "lease")
_READ_PARAMS = (*CONSISTENCY_PARAMS, "format", "revision", *poll.PARAMS)


class KvHandlers:
    """The handlers of one node. ``machine`` is read between turns, never while one runs."""

    def __init__(
        self, service: Service, machine: KvMachine, limits: Limits, *, writes: Writes, polls: poll.Polls
    ) -> None:
        self._service = service
        self._writes = writes
        self._polls = polls
        self._store = machine.store  # the same one for as long as the machine lives
        self._limits = limits

    # -- writes --------------------------------------------------------------------------------------------

    async def put(self, request: web.BaseRequest, raw_key: str) -> Answer:
        key = parse_key(raw_key, self._limits.max_key_bytes)
        params, timeout = self._write_params(request, _PUT_PARAMS)
        condition = condition_of(request.headers, params)
        content_type = content_type_of(request.headers)
        has_lease = "lease" in params or "ttl" in params
        lease, lasts_ms = _lease_of(params) if has_lease else (0, 0)
        value, timeout = await whole_body(request, self._limits.max_value_bytes, timeout, "the value")
        command = encode_put(key, value, content_type, condition, lease=lease, ttl_ms=lasts_ms)
        adds_bytes = len(key) + len(value)
        if has_lease or TOKEN_HEADER in request.headers:
            feature = "leases" if has_lease else None
            result = await self._writes.result(
                request.headers, command, timeout, feature=feature, adds_bytes=adds_bytes
            )
        else:
            if self._writes.exceeds_quota(adds_bytes):
                await self._writes.check_quota(adds_bytes, timeout)
            result = await self._service.propose(command, timeout)
        return self.written(key, result, condition)

    def written(self, key: bytes, result: Any, condition: Condition | None = None) -> Answer:
        """What a put is answered, of the machine's ``result``."""
        if not isinstance(result, PutResult):
            raise self._refusal(result, condition)
        body = {
            **key_fields(key),
            "revision": result.revision,
            "version": result.version,
            "created": result.created,
        }
        if result.lease:
            body["lease"] = result.lease
        revision = result.revision
        head = f'{_JSON_LINE}{common_lines(self._service, revision)}ETag: "{revision}"\r\n'
        return Answer(head, orjson.dumps(body) + b"\n", 201 if result.created else 200)

    async def delete(self, request: web.BaseRequest, raw_key: str) -> Answer:
        key = parse_key(raw_key, self._limits.max_key_bytes)
        params, timeout = self._write_params(request, _WRITE_PARAMS)
        condition = condition_of(request.headers, params)
        _, timeout = await whole_body(request, self._limits.max_value_bytes, timeout, "the body")
        result = await self._writes.result(request.headers, encode_delete(key, condition), timeout)
        if not isinstance(result, DeleteResult):
            raise self._refusal(result, condition)
        body = {"deleted": result.deleted, "revision": result.revision}
        return Answer(common_headers(self._service, result.revision, JSON), orjson.dumps(body) + b"\n")

    def _write_params(
        self, request: web.BaseRequest, allowed: tuple[str, ...]
    ) -> tuple[dict[str, bytes], float]:
        query = request.rel_url.raw_query_string
        params = parse_query(query, allowed) if query else {}
        return params, timeout_ms(
            params, self._limits.request_timeout_ms, self._limits.max_request_timeout_ms
        )

    def _refusal(self, result: Any, condition: Condition | None) -> RaftkvError:
        if isinstance(result, Refused):
            now = f"is at revision {result.mod_revision}" if result.mod_revision else "doesn't exist"
            wanted = _in_words(condition)
            return ConditionFailed(
                f"the key {now}, but the request wanted {wanted}",
                extra={"mod_revision": result.mod_revision, "revision": result.revision},
            )
        return refusal(result)

    # -- reads ---------------------------------------------------------------------------------------------

    async def get(self, request: web.BaseRequest, raw_key: str) -> Answer:
        key = parse_key(raw_key, self._limits.max_key_bytes)
        query = request.rel_url.raw_query_string
        params = parse_query(query, _READ_PARAMS) if query else {}
        form = _envelope_form(params, request.headers.get("Accept", "*/*"))
        revision = revision_param(params) if params else 0
        condition = condition_of(request.headers, {})
        freshness = await await_consistency(self._service, self._limits, params)
        store = self._store
        if (
            params
            and ("wait" in params or "since" in params)
            and not await self._polls.has_changed(request, key, params)
        ):
            headers = common_headers(self._service, store.revision, JSON)
            del headers["Content-Type"]
            freshness.note(headers)
            return Answer(headers, status=304)
        item = self._item_at(key, revision) if revision else store.get(key)
        if item is None:
            raise self._absent(freshness)
        if condition is not None and not holds(condition, item.mod_revision):
            if condition.kind in (ConditionKind.EXISTS, ConditionKind.REVISION_IN):
                raise self._refusal(Refused(item.mod_revision, store.revision), condition)
            return Answer(self._item_lines(item, freshness), status=304)
        if form is not None:
            head = type_line(form.content_type) + self._item_lines(item, freshness)
            return Answer(head, form.dump(envelope(key, item, form.fields)))
        return self._raw(item, freshness)

    def read(self, key: bytes, freshness: Freshness) -> Answer:
        """The key as it is now, raw. Raises ``KeyNotFound``."""
        item = self._store.get(key)
        if item is None:
            raise self._absent(freshness)
        return self._raw(item, freshness)

    def _raw(self, item: Item, freshness: Freshness) -> Answer:
        head = type_line(item.content_type or _OCTETS) + self._item_lines(item, freshness)
        return Answer(head + "X-Content-Type-Options: nosniff\r\n", item.value)

    def _item_lines(self, item: Item, freshness: Freshness) -> str:
        """All of the head but the type."""
        _, created, modified, version, _, lease = item
        lease_line = f"Raftkv-Lease: {lease}\r\n" if lease else ""
        return (
            f"{common_lines(self._service, self._store.revision)}"
            f'ETag: "{modified}"\r\n'
            f"Raftkv-Create-Revision: {created}\r\n"
            f"Raftkv-Mod-Revision: {modified}\r\n"
            f"Raftkv-Version: {version}\r\n"
            f"{lease_line}{freshness.lines()}"
        )

    def _absent(self, freshness: Freshness) -> KeyNotFound:
        """404, which may be as stale as any answer."""
        revision = self._store.revision
        headers = common_headers(self._service, revision, JSON)
        freshness.note(headers)
        return KeyNotFound("there is no such key", extra={"revision": revision}, headers=headers)

    def _item_at(self, key: bytes, revision: int) -> Item | None:
        check_not_future(self._store, revision)
        try:
            return self._store.get_at(key, revision)
        except Compacted as error:
            raise compacted(error) from None


def content_type_of(headers: MultiMapping[str]) -> str | None:
    """Of the value in a request. Raises ``BadRequest``."""
    content_type = headers.get("Content-Type")
    if content_type is None or content_type == _FORM:
        return None
    check_content_type(content_type)
    return content_type


def _envelope_form(params: Mapping[str, bytes], accept: str) -> Form | None:
    """The form of the envelope that is wanted; None: the raw value is."""
    if "format" in params:
        return IN_JSON if choice_of(params, "format", ("raw", "json")) == "json" else None
    if accept == "*/*":
        return None
    if MSGPACK in accept:
        return IN_MSGPACK
    return IN_JSON if JSON in accept else None


def _lease_of(params: Mapping[str, bytes]) -> tuple[int, int]:
    """(lease, 0) or (0, ttl in ms), of which one is given."""
    if "lease" in params and "ttl" in params:
        raise BadRequest("give lease or ttl, not both")
    if "ttl" in params:
        return 0, ttl_ms(text_of(params, "ttl"))
    return number_of(params, "lease", 0, 1, MAX_ID), 0


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
