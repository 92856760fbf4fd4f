"""From the routes and what is said of each to one document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cache
from typing import Any

import orjson

from raftkv import __version__
from raftkv.api.openapi import grants, keys, nodes
from raftkv.api.openapi.events import EVENTS
from raftkv.api.openapi.parameters import REDIRECT
from raftkv.api.openapi.parts import ANY, Answer, Operation, Operations, Parameter, Schema, number, ref, text
from raftkv.api.openapi.schemas import SCHEMAS
from raftkv.api.problem import PROBLEM_JSON
from raftkv.errors import RaftkvError

_OPERATIONS: Operations = {**keys.OPERATIONS, **grants.OPERATIONS, **nodes.OPERATIONS}
_DESCRIPTION = """\
A replicated key-value store. Any node takes any request.

Values go in and out as raw bytes. In JSON a field of bytes is text, or base64 in `NAME_base64` where it
isn't UTF-8; where `application/msgpack` may be sent or accepted, it is bytes. Keys are any bytes,
percent-encoded in a path, where a `/` of a key may stand as it is. An unknown query parameter is refused.
Every HEAD is answered as its GET, without a body.

Each error says by its `outcome` what became of the request: `not_applied`, or `unknown` where it may have
been applied, or may be yet.
"""
_TAGS = {
    "keys": "Keys, ranges, and what changes",
    "transactions": "Several operations at one revision, or in one request",
    "leases": "What lives for a while",
    "locks": "One holder at a time, in a fair queue, with a fencing token",
    "elections": "One leader at a time, and what it says",
    "services": "Instances that are listed while they live",
    "members": "Who the members are",
    "nodes": "A node and its cluster",
}
_HEADERS: dict[str, tuple[Schema, str]] = {
    "Raftkv-Revision": (number(), "The store's revision when it answered, of a write that of the write"),
    "Raftkv-Node": (text(), "Who answered"),
    "Raftkv-Leader": (text(), "Who leads, as far as that node knows"),
    "Raftkv-Consistency": (text(enum=["linearizable", "lease", "stale"]), "How fresh the answer is"),
    "Raftkv-Staleness-Ms": (number(), "Where it is stale: how old it may be"),
    "Raftkv-Create-Revision": (number(1), "The revision that made the key"),
    "Raftkv-Mod-Revision": (number(1), "The revision that last changed it"),
    "Raftkv-Version": (number(1), "How often it was put since it was made"),
    "Raftkv-Lease": (number(1), "The lease that it goes with"),
    "Raftkv-Keys": (number(), "How many keys the snapshot has"),
    "ETag": (text(pattern='^"[0-9]+"$'), "The key's mod_revision, quoted"),
    "Content-Disposition": (text(), "A name for the file"),
    "Location": (text(), "The same request, at the leader"),
    "Retry-After": (number(), "Seconds: the request did not happen, and may be sent again"),
}

_ELSEWHERE = Answer("Ask the leader itself", headers=("Location", "Raftkv-Node", "Raftkv-Leader"))


@cache
def encoded_document(routes: tuple[tuple[str, tuple[str, ...]], ...]) -> bytes:
    """``document`` as JSON, made once; ``routes``: the items of its argument."""
    return orjson.dumps(document({path: frozenset(methods) for path, methods in routes})) + b"\n"


def document(table: Mapping[str, Set[str]]) -> dict[str, Any]:
    """The document of the routes in ``table``, methods by path. Raises ``ValueError`` unless each has an
    operation, and each operation a route.
    """
    routes = {(method, path) for path, methods in table.items() for method in methods}
    described = {(method, path) for method, path in routes if _operation(method, path) is not None}
    if stray := (routes - described) | (_OPERATIONS.keys() - routes):
        raise ValueError(f"a route without an operation, or the other way round: {sorted(stray)}")
    return _Document(routes).build()


def _operation(method: str, path: str) -> Operation | None:
    return _OPERATIONS.get(("GET" if method == "HEAD" else method, path))


class _Document:
    def __init__(self, routes: Set[tuple[str, str]]) -> None:
        self._routes = routes
        self._parameters: dict[str, dict[str, Any]] = {}
        self._responses: dict[str, dict[str, Any]] = {}

    def build(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = defaultdict(dict)
        for method, path in sorted(self._routes, key=lambda route: (route[1], route[0])):
            operation = _operation(method, path)
            assert operation is not None
            if path.startswith("/v1/"):
                operation = replace(
                    operation,
                    parameters=(*operation.parameters, REDIRECT),
                    answers={**operation.answers, 307: _ELSEWHERE},
                )
            paths[path][method.lower()] = self._described(operation, is_head=method == "HEAD")
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "raftkv",
                "version": __version__,
                "description": _DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
            "paths": dict(paths),
            "components": {
                "schemas": {**SCHEMAS, **EVENTS},
                "parameters": dict(sorted(self._parameters.items())),
                "responses": dict(sorted(self._responses.items())),
                "headers": {
                    name: {"description": description, "schema": schema}
                    for name, (schema, description) in _HEADERS.items()
                },
            },
        }

    def _described(self, operation: Operation, *, is_head: bool) -> dict[str, Any]:
        described: dict[str, Any] = {
            "operationId": f"{operation.id}Head" if is_head else operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
        }
        if operation.description:
            described["description"] = operation.description
        if operation.parameters:
            described["parameters"] = [self._parameter(each) for each in operation.parameters]
        if operation.body is not None:
            described["requestBody"] = {
                "required": operation.body.required,
                "content": {name: {"schema": schema} for name, schema in operation.body.content.items()},
            }
        described["responses"] = self._answers(operation)
        return described

    def _parameter(self, parameter: Parameter) -> Schema:
        described: dict[str, Any] = {"name": parameter.name, "in": parameter.where}
        if parameter.where == "path":
            described["required"] = True
        described |= {"description": parameter.description, "schema": parameter.schema}
        known = self._parameters.setdefault(parameter.id, described)
        if known != described:
            raise ValueError(f"two parameters are called {parameter.id}")
        return {"$ref": f"#/components/parameters/{parameter.id}"}

    def _answers(self, operation: Operation) -> dict[str, Any]:
        by_status: dict[int, set[type[RaftkvError]]] = defaultdict(set)
        for error in (*ANY, *operation.errors):
            by_status[error.status].add(error)
        answers = {str(status): _answer(answer) for status, answer in operation.answers.items()}
        for status, errors in by_status.items():
            problem = self._problem(status, errors)
            if (known := answers.get(str(status))) is None:
                answers[str(status)] = problem
            else:  # it is the one or the other
                known["content"] |= self._responses[problem["$ref"].rsplit("/", 1)[1]]["content"]
        return dict(sorted(answers.items()))

    def _problem(self, status: int, errors: Set[type[RaftkvError]]) -> Schema:
        """The answer that is one of ``errors``, all of which have this ``status``."""
        codes = sorted(error.code for error in errors)
        name = f"{status}-{'-'.join(codes)}"
        only: Schema = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
        titles = (f"{error.title} (`{error.code}`)" for error in sorted(errors, key=lambda error: error.code))
        self._responses[name] = {
            "description": "; ".join(titles),
            "headers": {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
            "content": {PROBLEM_JSON: {"schema": {"allOf": [ref("Problem"), only]}}},
        }
        return {"$ref": f"#/components/responses/{name}"}


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
    if answer.content:
        described["content"] = {name: {"schema": schema} for name, schema in answer.content.items()}
    return described
