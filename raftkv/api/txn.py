"""``POST /v1/txn``, ``/v1/batch`` and ``/v1/compact``: commands of several operations, and of none."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.body import whole_body
from raftkv.api.consistency import common_headers
from raftkv.api.form import form_of, parse_document
from raftkv.api.limits import Limits
from raftkv.api.operations import Encoder
from raftkv.api.outcomes import outcomes, txn_outcome
from raftkv.api.params import parse_query, timeout_ms
from raftkv.api.writes import Writes
from raftkv.errors import BadRequest
from raftkv.kv.commands import encode_compact
from raftkv.ports import Service

_PARAMS = ("timeout",)
_MAX_REVISION = (1 << 63) - 1


class TxnHandlers:
    def __init__(self, service: Service, limits: Limits, writes: Writes) -> None:
        self._service = service
        self._limits = limits
        self._writes = writes

    async def txn(self, request: web.BaseRequest) -> Answer:
        document, left_ms = await self._document(request)
        encoder = Encoder(self._limits, self._limits.max_txn_operations)
        command = encoder.txn(document)
        result = await self._writes.propose(
            request.headers, command, left_ms, feature="transactions", adds_bytes=encoder.adds_bytes
        )
        found = txn_outcome(document, result, form_of(request.headers).fields)
        return self._answer(request, {"revision": result.revision, **found}, result.revision)

    async def batch(self, request: web.BaseRequest) -> Answer:
        document, left_ms = await self._document(request)
        operations = document.get("ops")
        if document.keys() != {"ops"} or not isinstance(operations, list):
            raise BadRequest('the body must be like {"ops": [{"put": {...}}, ...]}')
        if not all(isinstance(each, dict) for each in operations):
            raise BadRequest("each operation must be an object")
        encoder = Encoder(self._limits, self._limits.max_batch_operations)
        command = encoder.batch(operations)
        result = await self._writes.propose(
            request.headers, command, left_ms, feature="transactions", adds_bytes=encoder.adds_bytes
        )
        found = outcomes(operations, result.results, form_of(request.headers).fields)
        return self._answer(request, {"revision": result.revision, "results": found}, result.revision)

    async def compact(self, request: web.BaseRequest) -> Answer:
        document, left_ms = await self._document(request)
        revision = document.get("revision")
        if document.keys() != {"revision"} or type(revision) is not int or not 0 <= revision <= _MAX_REVISION:
            raise BadRequest('the body must be like {"revision": 42}: the oldest that can still be read')
        result = await self._writes.propose(
            request.headers, encode_compact(revision), left_ms, feature="history"
        )
        body = {"compacted": result.compacted, "revision": result.revision}
        return self._answer(request, body, result.revision)

    async def _document(self, request: web.BaseRequest) -> tuple[dict[str, Any], float]:
        """The body, and what it left of the time that the request may take, in ms."""
        query = request.rel_url.raw_query_string
        params = parse_query(query, _PARAMS) if query else {}
        limits = self._limits
        left_ms = timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)
        body, left_ms = await whole_body(request, limits.max_request_bytes, left_ms, "the body")
        return parse_document(request.headers, body), left_ms

    def _answer(self, request: web.BaseRequest, document: dict[str, Any], revision: int) -> Answer:
        form = form_of(request.headers)
        headers = common_headers(self._service, revision, form.content_type)
        return Answer(headers, form.dump(document))
