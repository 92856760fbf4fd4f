"""The operations of a transaction or batch: from documents to commands, and from results to documents.

An operation is ``{"put": {...}}``, or flat, ``{"op": "put", ...}``. Strict, as all that comes in: an unknown
field is refused. Raises ``BadRequest`` and ``TooLarge``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from raftkv.api.form import bytes_of
from raftkv.api.limits import Limits
from raftkv.api.params import check_content_type, check_key, ttl_ms
from raftkv.errors import BadRequest, TooLarge
from raftkv.kv.commands import (
    Compare,
    Relation,
    Target,
    encode_batch_of,
    encode_delete,
    encode_delete_range,
    encode_get,
    encode_increment,
    encode_put,
    encode_puts,
    encode_range,
    encode_txn,
)
from raftkv.kv.lease import MAX_ID
from raftkv.kv.places import ELECTION, LOCK
from raftkv.kv.store import prefix_end
from raftkv.kv.txn import MAX_DEPTH, MAX_NUMBER

Choice = TypeVar("Choice")

FIRST_KEY = b"\x01"  # what is before is the store's own

_RANGE_FIELDS = ("prefix", "prefix_base64", "start", "start_base64", "end", "end_base64")
_KEY_FIELDS = ("key", "key_base64")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "put": (*_KEY_FIELDS, "value", "value_base64", "content_type", "lease", "ttl"),
    "get": (*_KEY_FIELDS, *_RANGE_FIELDS, "limit", "reverse", "keys_only"),
    "delete": (*_KEY_FIELDS, *_RANGE_FIELDS),
    "increment": (*_KEY_FIELDS, "by"),
    "txn": ("if", "then", "else"),
}
_COMPARE_FIELDS = (*_KEY_FIELDS, "end", "end_base64", "target", "op", "value", "value_base64")
_TARGETS = {target.name.lower(): target for target in Target}
_RELATIONS = {
    "==": Relation.EQUAL,
    "!=": Relation.NOT_EQUAL,
    "<": Relation.LESS,
    ">": Relation.GREATER,
}
_MAX_ITEMS = 1_000
_MAX_ALL_ITEMS = 10_000  # of all ranges that are read in one request


class Encoder:
    """Of one request: counts what it asks for."""

    def __init__(self, limits: Limits, max_operations: int) -> None:
        self._limits = limits
        self._max_operations = max_operations
        self._operations = 0
        self._items = 0
        self.adds_bytes = 0  # keys and values that it may store

    def txn(self, document: Mapping[str, Any], depth: int = 0) -> bytes:
        """``{"if": [...], "then": [...], "else": [...]}``, each of which may be missing."""
        _check_fields("a transaction", document, _FIELDS["txn"])
        if depth == MAX_DEPTH:
            raise BadRequest(f"transactions are nested deeper than {MAX_DEPTH}")
        compares = [self._compare(each) for each in _objects(document, "if")]
        then = [self.operation(each, depth) for each in _objects(document, "then")]
        otherwise = [self.operation(each, depth) for each in _objects(document, "else")]
        return encode_txn(compares, then, otherwise)

    def batch(self, documents: Sequence[Mapping[str, Any]]) -> bytes:
        """Operations each for itself."""
        puts = self._plain_puts(documents)
        if puts is not None:
            return encode_puts(puts)
        return encode_batch_of([self.operation(each) for each in documents])

    def _plain_puts(self, documents: Sequence[Mapping[str, Any]]) -> list[tuple[bytes, bytes]] | None:
        """The keys and values where all ``documents`` are puts of text that can be done, with nothing else
        said, as nearly all are; None: they must be looked at one by one.
        """
        if len(documents) > self._max_operations:
            return None
        max_key_bytes, max_value_bytes = self._limits.max_key_bytes, self._limits.max_value_bytes
        puts = []
        adds_bytes = 0
        for document in documents:
            fields = document.get("put")
            if len(document) != 1 or type(fields) is not dict or len(fields) != 2:
                return None
            key, value = fields.get("key"), fields.get("value")
            if type(key) is not str or type(value) is not str:
                return None
            try:
                put = key.encode(), value.encode()
            except UnicodeEncodeError:
                return None
            if not 0 < len(put[0]) <= max_key_bytes or not put[0][0] or len(put[1]) > max_value_bytes:
                return None
            adds_bytes += len(put[0]) + len(put[1])
            puts.append(put)
        self.adds_bytes = adds_bytes
        return puts

    def operation(self, document: Mapping[str, Any], depth: int = -1) -> bytes:
        """``depth``: how many transactions it stands in, but one."""
        self._count()
        name, fields = named(document)
        _check_fields(name, fields, _FIELDS[name])
        match name:
            case "put":
                return self._put(fields)
            case "get":
                return self._get(fields)
            case "delete":
                if "key" in fields or "key_base64" in fields:
                    _check_fields("delete of one key", fields, _KEY_FIELDS)
                    return encode_delete(self._key(fields))
                return encode_delete_range(*range_of(fields))
            case "increment":
                key = self._key(fields)
                self.adds_bytes += len(key)
                return encode_increment(key, _number(fields, "by", 1, -MAX_NUMBER, MAX_NUMBER))
            case _:
                return self.txn(fields, depth + 1)

    def _put(self, fields: Mapping[str, Any]) -> bytes:
        key, value = self._key(fields), bytes_of(fields, "value")
        if value is None:
            raise BadRequest("a put needs a value, or value_base64")
        if len(value) > self._limits.max_value_bytes:
            limit = self._limits.max_value_bytes
            raise TooLarge(f"a value has {len(value)} bytes; at most {limit} are allowed")
        self.adds_bytes += len(key) + len(value)
        content_type = fields.get("content_type")
        if content_type is not None:
            check_content_type(content_type)
        if "lease" in fields and "ttl" in fields:
            raise BadRequest("give lease or ttl, not both")
        lease = _number(fields, "lease", 0, 1, MAX_ID)
        lasts_ms = ttl_ms(fields["ttl"]) if "ttl" in fields else 0
        return encode_put(key, value, content_type, lease=lease, ttl_ms=lasts_ms)

    def _get(self, fields: Mapping[str, Any]) -> bytes:
        if "key" in fields or "key_base64" in fields:
            _check_fields("get of one key", fields, _KEY_FIELDS)
            return encode_get(self._key(fields))
        limit = _number(fields, "limit", 100, 1, _MAX_ITEMS)
        self._items += limit
        if self._items > _MAX_ALL_ITEMS:
            raise TooLarge(f"at most {_MAX_ALL_ITEMS} items can be asked for at once: give smaller limits")
        start, end = range_of(fields)
        return encode_range(
            start, end, limit, reverse=_flag(fields, "reverse"), keys_only=_flag(fields, "keys_only")
        )

    def _compare(self, document: Mapping[str, Any]) -> Compare:
        self._count()
        _check_fields("a compare", document, _COMPARE_FIELDS)
        target = _chosen(document, "target", _TARGETS, "value")
        relation = _chosen(document, "op", _RELATIONS, "==")
        end = bytes_of(document, "end")
        key = bytes_of(document, "key") or b""
        if end is not None:
            key = max(FIRST_KEY, key)
        elif not key.startswith((LOCK, ELECTION)):  # a place's key, as its grant gave it, may be named
            key = self._key(document)
        operand: bytes | int | None
        if target is Target.VALUE:
            operand = bytes_of(document, "value")
        elif target is Target.EXISTS:
            operand = int("value" not in document or _flag(document, "value"))
        else:
            operand = _number(document, "value", -1, 0, MAX_NUMBER)
            operand = None if operand < 0 else operand
        if operand is None:
            raise BadRequest("a compare needs a value to compare with")
        return Compare(key, target, relation, operand, end)

    def _key(self, fields: Mapping[str, Any]) -> bytes:
        key = bytes_of(fields, "key")
        if key is None:
            raise BadRequest("a key is missing: give key, or key_base64")
        check_key(key, self._limits.max_key_bytes)
        return key

    def _count(self) -> None:
        self._operations += 1
        if self._operations > self._max_operations:
            raise TooLarge(
                f"at most {self._max_operations} operations and compares are allowed in one request"
            )


def named(document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """An operation's name and its fields."""
    name: Any = None
    fields: Any = None
    if "op" in document:
        name, fields = document["op"], {field: value for field, value in document.items() if field != "op"}
    elif len(document) == 1:
        ((name, fields),) = document.items()
    if not isinstance(name, str) or name not in _FIELDS or not isinstance(fields, dict):
        raise BadRequest(f'an operation is like {{"put": {{...}}}}; there are {", ".join(_FIELDS)}')
    return name, fields


def range_of(fields: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
    """The half-open range of ``prefix``, or of ``start`` and ``end``; one of them must be there."""
    prefix, start, end = (bytes_of(fields, name) for name in ("prefix", "start", "end"))
    return key_range(prefix, start, end)


def key_range(prefix: bytes | None, start: bytes | None, end: bytes | None) -> tuple[bytes, bytes | None]:
    """As ``range_of``. It holds none of the store's own keys."""
    if prefix is None and start is None and end is None:
        raise BadRequest("say which keys: give a prefix (an empty one for all), or start and end")
    check_end(end)
    if prefix is not None:
        if start is not None or end is not None:
            raise BadRequest("give either prefix, or start and end")
        if prefix.startswith(b"\0"):
            raise BadRequest("a key can't begin with a NUL byte")
        return max(FIRST_KEY, prefix), prefix_end(prefix)
    return max(FIRST_KEY, start or b""), end


def check_end(end: bytes | None) -> None:
    """Raises for the empty one: a range that holds nothing, where all to the last key may be meant."""
    if end == b"":
        raise BadRequest("end is empty, and no key is before it: leave it out for all keys from start on")


def _objects(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = document.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise BadRequest(f"{name} must be a list of objects")
    return found


def _check_fields(what: str, document: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in document:
        if name not in allowed:
            raise BadRequest(f"{what} has no field {name!r}; it may have {', '.join(allowed)}")


def _number(document: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = document.get(name, default)
    if name in document and (type(value) is not int or not low <= value <= high):
        raise BadRequest(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return int(value)


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name, False)
    if type(value) is not bool:
        raise BadRequest(f"{name} must be true or false, got {value!r}")
    return value


def _chosen(document: Mapping[str, Any], name: str, choices: Mapping[str, Choice], default: str) -> Choice:
    value = document.get(name, default)
    if not isinstance(value, str) or value not in choices:
        raise BadRequest(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]
