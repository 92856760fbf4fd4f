"""The two forms of a structured body: JSON for people and curl, msgpack for who minds base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson
from multidict import MultiMapping

from raftkv.errors import BadRequest

JSON = "application/json"
MSGPACK = "application/msgpack"

Fields = Callable[[str, bytes], dict[str, Any]]
"""A field of bytes, by its name, as the fields that stand for it in a document."""


def text_or_base64(name: str, data: bytes) -> dict[str, Any]:
    """``{name: text}``, or ``{name_base64: ...}`` where it isn't UTF-8."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _as_it_is(name: str, data: bytes) -> dict[str, Any]:
    return {name: data}


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer is written."""

    content_type: str
    fields: Fields
    dump: Callable[[Any], bytes]


def _dump_json(document: Any) -> bytes:
    return orjson.dumps(document) + b"\n"


def _dump_msgpack(document: Any) -> bytes:
    return bytes(msgpack.packb(document))


IN_JSON = Form(JSON, text_or_base64, _dump_json)
IN_MSGPACK = Form(MSGPACK, _as_it_is, _dump_msgpack)


def form_of(headers: MultiMapping[str]) -> Form:
    """The form that a client wants its answer in: what it accepts, or that of its own body."""
    accept = headers.get("Accept", "*/*")
    if MSGPACK in accept or (accept == "*/*" and _is_msgpack(headers)):
        return IN_MSGPACK
    return IN_JSON


def _is_msgpack(headers: MultiMapping[str]) -> bool:
    return headers.get("Content-Type", "").startswith(MSGPACK)


def parse_document(headers: MultiMapping[str], body: bytes) -> dict[str, Any]:
    """A body that is an object. Raises ``BadRequest``."""
    kind = "msgpack" if _is_msgpack(headers) else "JSON"
    try:
        document = msgpack.unpackb(body) if kind == "msgpack" else orjson.loads(body)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"the body isn't {kind}: {reason}") from None
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise BadRequest("the body must be an object")
    return document


def bytes_of(document: Mapping[str, Any], name: str) -> bytes | None:
    """A field of bytes: ``name`` as text (in msgpack bytes, too), or ``name_base64``; None: it is neither."""
    encoded = document.get(f"{name}_base64")
    if encoded is None:
        value = document.get(name)
        if isinstance(value, str):
            try:
                return value.encode()
            except UnicodeEncodeError:
                raise BadRequest(f"{name} isn't valid text; give {name}_base64") from None
        if value is None or isinstance(value, bytes):
            return value
        raise BadRequest(f"{name} must be text; what isn't goes into {name}_base64")
    if name in document:
        raise BadRequest(f"give {name} or {name}_base64, not both")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise BadRequest(f"{name}_base64 isn't base64") from None
