"""Histories as JSON lines: an operation a line, in any order. The format is docs/verify.md.

Strict: a field that is unknown, missing or of the wrong type is a ``BadHistory`` that names the line; a typo
must not turn a check off. Must not know how a history is judged.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from raftkv.verify.history import (
    Action,
    Cas,
    Condition,
    ConditionKind,
    Delete,
    Deleted,
    Get,
    History,
    Item,
    List,
    Listed,
    Operation,
    Outcome,
    Put,
    Read,
    Refused,
    Result,
    Written,
)

_NUMBER = (int, float)
_REQUIRED = object()
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class BadHistory(ValueError):
    """The text is no history; the message names the line (from 1)."""


def read_history(lines: Iterable[str]) -> History:
    """The operations of all lines that aren't empty. Raises BadHistory."""
    history = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            history.append(_operation(_Fields(json.loads(line), "the line")))
        except (ValueError, OverflowError, RecursionError) as error:
            raise BadHistory(f"line {number}: {error}") from None
    return history


def write_history(history: Iterable[Operation]) -> Iterator[str]:
    """A line for each operation, newline included."""
    for operation in history:
        yield json.dumps(_document(operation), ensure_ascii=False) + "\n"


class _Fields:
    """A JSON object, taken apart field by field; ``done`` complains of what was left."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{what} is no JSON object")
        self._fields = dict(value)
        self._what = what

    def take(self, name: str, types: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        value = self._fields.pop(name, None)
        if value is None:
            if default is _REQUIRED:
                raise ValueError(f"{self._what} has no {name!r}")
            return default
        # NB: True is an int to Python, but no number here.
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise ValueError(f"{name!r} can't be {json.dumps(value)[:80]}")
        if isinstance(value, str) and _HALF_CHARACTER.search(value):  # JSON can say it, but no terminal can
            raise ValueError(f"{name!r} has half a character: {json.dumps(value)[:80]}")
        return value

    def count(self, name: str, default: Any = None) -> Any:
        """A whole number, not negative."""
        number = self.take(name, int, default)
        if isinstance(number, int) and number < 0:
            raise ValueError(f"{name!r} can't be {number}")
        return number

    def raw(self, name: str, default: Any = _REQUIRED) -> Any:
        """Bytes: ``name`` as text, or ``name_base64``."""
        encoded = self.take(f"{name}_base64", str, None)
        if encoded is None:
            text = self.take(name, str, default)
            return text.encode() if isinstance(text, str) else text
        return b64decode(encoded, validate=True)

    def done(self) -> None:
        if extra := [name for name, value in self._fields.items() if value is not None]:
            raise ValueError(f"{self._what} has an unknown field {extra[0]!r}")


def _operation(fields: _Fields) -> Operation:
    client = fields.take("client", str)
    call = float(fields.take("call", _NUMBER))
    outcome = Outcome(fields.take("outcome", str))
    end = float(fields.take("return", _NUMBER, _REQUIRED if outcome is Outcome.OK else math.inf))
    name = fields.take("op", str)
    action = _action(name, fields)
    answer = fields.take("result", dict, None)
    result = None if answer is None else _result(name, _Fields(answer, "the result"))
    fields.done()
    return Operation(client, action, call, end, outcome, result)


def _action(name: str, fields: _Fields) -> Action:
    match name:
        case "put":
            return Put(fields.raw("key"), fields.raw("value"), _condition(fields))
        case "delete":
            return Delete(fields.raw("key"), _condition(fields))
        case "get":
            return Get(fields.raw("key"), fields.take("stale", bool, False))
        case "cas":
            return Cas(fields.raw("key"), fields.raw("expected"), fields.raw("value"))
        case "list":
            start, end = fields.raw("start", b""), fields.raw("end", None)
            limit, reverse = fields.count("limit", 100), fields.take("reverse", bool, False)
            return List(start, end, limit, reverse, fields.take("stale", bool, False))
    raise ValueError(f"'op' can't be {name!r}; it is put, delete, get, cas or list")


def _condition(fields: _Fields) -> Condition | None:
    kind = fields.take("condition", str, None)
    revisions = fields.take("revisions", list, [])
    if kind is None and not revisions:
        return None
    if kind is None or not all(type(revision) is int for revision in revisions):
        raise ValueError("'revisions' are whole numbers, and go with a 'condition'")
    return Condition(ConditionKind(kind), tuple(revisions))


def _result(name: str, fields: _Fields) -> Result:
    result: Result
    revision = fields.count("revision")
    if fields.take("refused", bool, False):
        result = Refused(fields.count("mod_revision"), revision)
    elif name in ("put", "cas"):
        result = Written(revision, fields.count("version"))
    elif name == "delete":
        result = Deleted(fields.count("deleted", _REQUIRED), revision)
        if result.deleted > 1:
            raise ValueError(f"'deleted' can't be {result.deleted}")
    elif name == "get":
        result = Read(_item(fields) if fields.take("found", bool) else None, revision)
    else:
        entries = [_Fields(entry, "an item") for entry in fields.take("items", list)]
        items = tuple((entry.raw("key"), _item(entry)) for entry in entries)
        for entry in entries:
            entry.done()
        result = Listed(items, fields.take("more", bool, None), revision)
    fields.done()
    return result


def _item(fields: _Fields) -> Item:
    return Item(
        fields.raw("value", None),
        fields.count("create_revision"),
        fields.count("mod_revision"),
        fields.count("version"),
    )


# -- and back ----------------------------------------------------------------------------------------------


def _document(operation: Operation) -> dict[str, Any]:
    action, result = operation.action, operation.result
    document: dict[str, Any] = {"client": operation.client, "op": type(action).__name__.lower()}
    for name in type(action).__slots__:
        document |= _shown(name, getattr(action, name))
    document |= {"call": operation.call, "outcome": operation.outcome.value}
    if math.isfinite(operation.end):
        document["return"] = operation.end
    if result is not None:
        document["result"] = _answer(result)
    return document


def _answer(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = {}
    match result:
        case Refused():
            document["refused"] = True
        case Read(item):
            document["found"] = item is not None
            document |= {} if item is None else _parts(item)
        case Listed(items):
            document["items"] = [_shown("key", key) | _parts(item) for key, item in items]
    return document | {name: value for name, value in _parts(result).items() if name not in ("item", "items")}


def _parts(value: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name in type(value).__slots__:
        parts |= _shown(name, getattr(value, name))
    return parts


def _shown(name: str, value: Any) -> dict[str, Any]:
    match value:
        case None | False if name != "more":
            return {}
        case bytes():
            try:
                return {name: value.decode()}
            except UnicodeDecodeError:
                return {f"{name}_base64": b64encode(value).decode()}
        case Condition(kind, revisions):
            return {"condition": kind.value, "revisions": list(revisions)}
    return {} if value is None else {name: value}
