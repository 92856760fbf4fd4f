"""What a transaction or a batch is made of: operations, and compares.

``Value("k") == b"v"`` is not a bool but a ``Compare``, to be given to ``when``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Self

from raftkv.sdk.forms import Data, Key, data_bytes, duration, field, key_bytes


@dataclass(frozen=True, slots=True)
class Put:
    """``lease``: an existing one that the key goes with; or ``ttl``, in seconds: one of its own."""

    key: Key
    value: Data
    content_type: str | None = None
    lease: int | None = None
    ttl: float | None = None

    def document(self) -> dict[str, Any]:
        put: dict[str, Any] = {
            **field("key", key_bytes(self.key)),
            **field("value", data_bytes(self.value)),
        }
        if self.content_type is not None:
            put["content_type"] = self.content_type
        if self.lease is not None:
            put["lease"] = self.lease
        if self.ttl is not None:
            put["ttl"] = duration(self.ttl)
        return {"put": put}


@dataclass(frozen=True, slots=True)
class Get:
    """Gives an ``Item``, or None."""

    key: Key

    def document(self) -> dict[str, Any]:
        return {"get": field("key", key_bytes(self.key))}


@dataclass(frozen=True, slots=True)
class GetRange:
    """The keys under ``prefix``, or from ``start`` to before ``end`` (None: to the last). Gives a
    ``RangeResult``.
    """

    prefix: Key | None = None
    start: Key | None = None
    end: Key | None = None
    limit: int | None = None
    reverse: bool = False
    keys_only: bool = False

    def document(self) -> dict[str, Any]:
        get: dict[str, Any] = range_fields(self.prefix, self.start, self.end)
        if self.limit is not None:
            get["limit"] = self.limit
        if self.reverse:
            get["reverse"] = True
        if self.keys_only:
            get["keys_only"] = True
        return {"get": get}


@dataclass(frozen=True, slots=True)
class Delete:
    key: Key

    def document(self) -> dict[str, Any]:
        return {"delete": field("key", key_bytes(self.key))}


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """As ``GetRange`` chooses."""

    prefix: Key | None = None
    start: Key | None = None
    end: Key | None = None

    def document(self) -> dict[str, Any]:
        return {"delete": range_fields(self.prefix, self.start, self.end)}


@dataclass(frozen=True, slots=True)
class Increment:
    """The value is a decimal number; an absent key counts as 0."""

    key: Key
    by: int = 1

    def document(self) -> dict[str, Any]:
        return {"increment": {**field("key", key_bytes(self.key)), "by": self.by}}


@dataclass(frozen=True, slots=True)
class Txn:
    """A transaction within another: all or nothing with it."""

    when: tuple[Compare, ...] = ()
    then: tuple[Operation, ...] = ()
    otherwise: tuple[Operation, ...] = ()

    def document(self) -> dict[str, Any]:
        return {"txn": self.fields()}

    def fields(self) -> dict[str, Any]:
        """Its parts, as ``POST /v1/txn`` takes them."""
        return {
            "if": [each.document() for each in self.when],
            "then": [each.document() for each in self.then],
            "else": [each.document() for each in self.otherwise],
        }


Operation = Put | Get | GetRange | Delete | DeleteRange | Increment | Txn


def range_fields(prefix: Key | None, start: Key | None, end: Key | None) -> dict[str, Any]:
    """Raises ValueError for a prefix together with a start or an end, or for none of them."""
    if (prefix is None) == (start is None and end is None):
        raise ValueError("give either prefix, or start and end")
    named = {"prefix": prefix, "start": start, "end": end}
    return {
        part: text
        for name, key in named.items()
        if key is not None
        for part, text in field(name, key_bytes(key)).items()
    }


# -- compares ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compare:
    """With an ``end``, of every key from ``key`` to before it."""

    key: Key
    target: str
    relation: str
    operand: bytes | int | bool
    end: Key | None = None

    def document(self) -> dict[str, Any]:
        operand = field("value", self.operand) if isinstance(self.operand, bytes) else {"value": self.operand}
        end = {} if self.end is None else field("end", key_bytes(self.end))
        return {
            **field("key", key_bytes(self.key)),
            **end,
            "target": self.target,
            "op": self.relation,
            **operand,
        }

    def __bool__(self) -> NoReturn:
        raise TypeError("a compare is decided by the cluster: give several to when(), without and/or/not")


class _Target:
    """``key``'s; with an ``end``, of every key from ``key`` to before it."""

    name = ""

    def __init__(self, key: Key, end: Key | None = None) -> None:
        self._key, self._end = key, end

    def _operand(self, operand: Any) -> bytes | int:
        if not isinstance(operand, int) or isinstance(operand, bool):
            raise TypeError(f"{self.name} is compared with a number, not with {operand!r}")
        return operand

    def _compare(self, relation: str, operand: Any) -> Compare:
        return Compare(self._key, self.name, relation, self._operand(operand), self._end)

    def __eq__(self, operand: Any) -> Compare:  # type: ignore[override]
        return self._compare("==", operand)

    def __ne__(self, operand: Any) -> Compare:  # type: ignore[override]
        return self._compare("!=", operand)

    def __lt__(self, operand: Any) -> Compare:
        return self._compare("<", operand)

    def __gt__(self, operand: Any) -> Compare:
        return self._compare(">", operand)

    __hash__ = None  # type: ignore[assignment]


class Value(_Target):
    """Compared with bytes, or with text, which stands for its UTF-8. An absent key has none: no relation
    holds.
    """

    name = "value"

    def _operand(self, operand: Any) -> bytes | int:
        if not isinstance(operand, str | bytes):
            raise TypeError(f"a value is compared with bytes or text, not with {operand!r}")
        return data_bytes(operand)


class Version(_Target):
    """How often it was put since it was made; 0: it isn't there."""

    name = "version"


class CreateRevision(_Target):
    """0: it isn't there."""

    name = "create_revision"


class ModRevision(_Target):
    """0: it isn't there."""

    name = "mod_revision"


class LeaseOf(_Target):
    """0: none."""

    name = "lease"


def exists(key: Key) -> Compare:
    return Compare(key, "exists", "==", True)


def absent(key: Key) -> Compare:
    return Compare(key, "exists", "==", False)


# -- a transaction that is being written down --------------------------------------------------------------


class TxnParts:
    """Each call adds to what is there."""

    def __init__(self) -> None:
        self._when: list[Compare] = []
        self._then: list[Operation] = []
        self._otherwise: list[Operation] = []

    def when(self, *compares: Compare) -> Self:
        """All of them must hold for ``then``."""
        for each in compares:
            if not isinstance(each, Compare):
                raise TypeError(f"when() takes compares, as Value('k') == b'v', not {each!r}")
        self._when += compares
        return self

    def then(self, *operations: Operation) -> Self:
        self._then += operations
        return self

    def otherwise(self, *operations: Operation) -> Self:
        self._otherwise += operations
        return self

    @property
    def txn(self) -> Txn:
        """What is written down; also to be part of another transaction."""
        return Txn(tuple(self._when), tuple(self._then), tuple(self._otherwise))
