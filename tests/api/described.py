"""The API as its OpenAPI document describes it, and calls made and judged by that alone."""

from __future__ import annotations

import re
from typing import Any

import msgpack
import requests
import schemathesis
from hypothesis import reject
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import load_all_checks
from schemathesis.core import NOT_SET
from schemathesis.specs.openapi import checks

from raftkv.api.app import Routes
from raftkv.api.openapi import document
from raftkv.api.openapi.parameters import DURATION
from raftkv.api.streams import NDJSON, SSE
from tests.api.node import DEADLINE_S, LIMITS, FakeService

_service = FakeService()
TABLE = Routes(_service, _service.machine, LIMITS).table
DOCUMENT = document(TABLE)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {
    operation.label: operation for operation in (found.ok() for found in SCHEMA.get_all_operations())
}

load_all_checks()
CONFORMANCE = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

# What more than one request is about, so that they meet.
_NAMES = ["a", "b", "b%2Fc"]
_SHARED: dict[str, list[Any]] = {"key": _NAMES, "name": _NAMES, "id": [1, 2, "a"], "lease": [1, 2, 3]}
# What is awaited needn't come.
_DURATIONS = {"timeout": "5s", "wait": "20ms", "max_staleness": "10s"}
_DURATION = re.compile(DURATION)


@schemathesis.serializer("application/msgpack")
def pack(context: Any, value: Any) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except OverflowError:  # a number that it can't say
        reject()


@schemathesis.deserializer("application/msgpack")
def unpack(context: Any, response: Response) -> Any:
    """Bytes as text: JSON's schemas know no others."""
    return _with_text(msgpack.unpackb(response.content))


def _with_text(value: Any) -> Any:
    match value:
        case bytes():
            return value.decode("latin-1")
        case dict():
            return {name: _with_text(held) for name, held in value.items()}
        case list():
            return [_with_text(held) for held in value]
    return value


@st.composite
def calls(draw: st.DrawFn, label: str, mode: GenerationMode) -> tuple[Case, str]:
    """A case of an operation, and what it accepts. It is about one of a few things more often than not, and
    waits for nothing long.
    """
    case = draw(OPERATIONS[label].as_strategy(mode))
    for held in (case.path_parameters, case.query):
        for name in sorted(held.keys() & _SHARED.keys()):
            if draw(st.booleans()):
                held[name] = draw(st.sampled_from(_SHARED[name]))
    for name, duration in _DURATIONS.items():
        if _DURATION.fullmatch(str(case.query.get(name, ""))):
            case.query[name] = duration
    if str(case.query.get("min_revision", "0")).strip("0"):
        # It may never come: only a read that asks nobody may be given little time for it.
        case.query |= {"timeout": "20ms", "consistency": "stale"}
    answers = case.operation.definition.raw["responses"].values()
    offered = {name for answer in answers for name in answer.get("content", {})}
    return case, draw(st.sampled_from(["*/*", *sorted(offered)]))


def has_parts(label: str) -> bool:
    """Whether there is anything of a request to the operation that could be wrong."""
    raw = OPERATIONS[label].definition.raw
    return "parameters" in raw or "requestBody" in raw


class Caller:
    """Calls one node, and judges its answers by the document."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()

    def close(self) -> None:
        self._session.close()

    def is_ready(self) -> bool:
        return self._session.get(f"{self._url}/readyz", timeout=DEADLINE_S).ok

    def do(
        self,
        label: str,
        path: dict[str, str] | None = None,
        *,
        query: dict[str, Any] | None = None,
        body: Any = NOT_SET,
        accept: str = "*/*",
        events: int = 1,
    ) -> Response:
        """A call that succeeds."""
        media_type = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        case = OPERATIONS[label].Case(
            path_parameters=path, query=query, body=body, media_type=None if body is NOT_SET else media_type
        )
        response = self.call(case, accept, events)
        assert response.status_code < 300, response.text
        return response

    def call(self, case: Case, accept: str = "*/*", events: int = 1) -> Response:
        """The answer, of a stream its first events. Raises what is wrong with it."""
        request = case.as_transport_kwargs(self._url, {"Accept": accept})
        with self._session.request(**request, stream=True, timeout=DEADLINE_S) as reply:
            kind = reply.headers.get("Content-Type", "").partition(";")[0]
            if kind in (SSE, NDJSON) and reply.request.method != "HEAD":
                reply._content = _beginning(reply, b"\n\n" if kind == SSE else b"\n", events)
            response = Response.from_requests(reply, verify=False)
        case.validate_response(response, checks=CONFORMANCE)
        return response


def _beginning(reply: requests.Response, between: bytes, events: int) -> bytes:
    content = b""
    for piece in reply.iter_content(None):
        content += piece
        if content.count(between) >= events:
            break
    return between.join(content.split(between)[:events]) + between
