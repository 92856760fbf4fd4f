"""What the description of an operation is made of, and how JSON schemas are written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from raftkv.api.form import JSON, MSGPACK
from raftkv.errors import (
    BadRequest,
    NoQuorum,
    NotReached,
    QuotaExceeded,
    RaftkvError,
    ShuttingDown,
    TimedOut,
    TokenReused,
    TooLarge,
    TooManyRequests,
    TooStale,
    UpgradeUnfinished,
    UriTooLong,
)

Schema = dict[str, Any]
Errors = tuple[type[RaftkvError], ...]

# What any request may be answered with, and what those may that ask the cluster.
ANY: Errors = (BadRequest, UriTooLong, RaftkvError)
READ: Errors = (NoQuorum, TooStale, NotReached, ShuttingDown, TooManyRequests)
WRITE: Errors = (NoQuorum, TimedOut, ShuttingDown, TooManyRequests, UpgradeUnfinished)
ONCE: Errors = (*WRITE, TokenReused)
STORE: Errors = (*ONCE, QuotaExceeded, TooLarge)

MAX_REVISION = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Parameter:
    """Of one name there may be several; ``component`` tells them apart."""

    name: str
    schema: Schema
    description: str
    where: Literal["query", "path", "header"] = "query"
    component: str = ""

    @property
    def id(self) -> str:
        return self.component or self.name


@dataclass(frozen=True, slots=True)
class Answer:
    """``content``: schemas by media type. ``headers``: names, of ``documents``."""

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    content: Mapping[str, Schema]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Operation:
    """``errors``: what it may be answered with beside ``answers`` and ``ANY``. A GET describes its path's
    HEAD, too.
    """

    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    errors: Errors = ()
    description: str = ""


Operations = Mapping[tuple[str, str], Operation]
"""By method and path."""


def ref(name: str) -> Schema:
    """One of ``schemas.SCHEMAS``."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_of(schema: Schema) -> dict[str, Schema]:
    return {JSON: schema}


def forms_of(schema: Schema) -> dict[str, Schema]:
    """The media types that a structured body may have."""
    return {JSON: schema, MSGPACK: schema}


def number(low: int = 0, high: int = MAX_REVISION, **more: Any) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, **more}


def text(**more: Any) -> Schema:
    return {"type": "string", **more}


def or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def record(
    required: Mapping[str, Schema],
    optional: Mapping[str, Schema] | None = None,
    *,
    data: Mapping[str, Schema] | None = None,
    maybe_data: Mapping[str, Schema] | None = None,
    never_together: Sequence[tuple[str, ...]] = (),
    is_open: bool = False,
) -> Schema:
    """An object. ``data``: its fields of bytes, of which each is there as ``name`` or as ``name_base64``;
    ``maybe_data`` at most so. ``is_open``: there may be other fields, and more with the next release.
    """
    data, maybe_data = data or {}, maybe_data or {}
    bytes_fields = {name: schema for each in (data, maybe_data) for name, schema in each.items()}
    properties = {
        **bytes_fields,
        **{f"{name}_base64": ref("Base64") for name in bytes_fields},
        **required,
        **(optional or {}),
    }
    rules: list[Schema] = [
        {"oneOf": [{"required": [name]}, {"required": [f"{name}_base64"]}]} for name in data
    ]
    pairs = [*never_together, *((name, f"{name}_base64") for name in maybe_data)]
    rules += [{"not": {"required": list(pair)}} for pair in pairs]
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if len(rules) == 1:
        schema |= rules[0]
    elif rules:
        schema["allOf"] = rules
    if not is_open:
        schema["additionalProperties"] = False
    return schema
