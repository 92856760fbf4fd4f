"""What comes back for a command, and its encoding for those that are remembered (``token``).

Each field is an int, bool, str, bytes, None, or again one of these or a tuple of them. The numbers of the
classes are in snapshots: never renumber, only add.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

import msgpack

from raftkv.kv.row import Item


class PutResult(NamedTuple):
    """NB: a tuple, made in a third of a frozen dataclass's time: each node makes one for each put."""

    revision: int  # the store's, after this put; the key's new mod_revision
    version: int  # how often the key was put since it was created; 1 for a new one
    lease: int = 0

    @property
    def created(self) -> bool:
        return self.version == 1


@dataclass(frozen=True, slots=True)
class DeleteResult:
    deleted: int  # how many keys
    revision: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition didn't hold; nothing changed."""

    mod_revision: int  # the key's, 0 where it is absent
    revision: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """The log holds a command that this machine can't read; nothing changed. Never happens between like
    versions.
    """

    reason: str


class Reason(StrEnum):
    NO_SUCH_LEASE = "no_such_lease"
    LEASE_EXISTS = "lease_exists"
    TOO_MANY_LEASES = "too_many_leases"
    NOT_A_NUMBER = "not_a_number"
    NUMBER_TOO_LARGE = "number_too_large"
    TOKEN_REUSED = "token_reused"
    FUTURE_REVISION = "future_revision"
    COMPACTED = "compacted"
    ANSWER_TOO_LARGE = "answer_too_large"


@dataclass(frozen=True, slots=True)
class Rejected:
    """It can't be done as things are; nothing changed."""

    reason: Reason
    detail: str
    revision: int


@dataclass(frozen=True, slots=True)
class GetResult:
    item: Item | None
    revision: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    items: tuple[tuple[bytes, Item], ...]
    more: bool
    revision: int


@dataclass(frozen=True, slots=True)
class IncrementResult:
    value: int  # after it
    revision: int
    version: int


@dataclass(frozen=True, slots=True)
class TxnResult:
    succeeded: bool  # the compares held; else the other branch was taken
    results: tuple[Any, ...]  # one for each command of the branch
    revision: int


@dataclass(frozen=True, slots=True)
class BatchResult:
    results: tuple[Any, ...]  # one for each command
    revision: int


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """Of a GRANT or KEEP_ALIVE."""

    lease: int
    ttl_ms: int
    expires_ms: int  # cluster time


@dataclass(frozen=True, slots=True)
class RevokeResult:
    deleted: int  # how many keys went with it
    revision: int


@dataclass(frozen=True, slots=True)
class CompactResult:
    compacted: int  # the oldest revision that can be read
    revision: int


@dataclass(frozen=True, slots=True)
class Done:
    """Of a LEVEL or TICK."""

    revision: int


Result = (
    PutResult
    | DeleteResult
    | Refused
    | Malformed
    | Rejected
    | GetResult
    | RangeResult
    | IncrementResult
    | TxnResult
    | BatchResult
    | LeaseResult
    | RevokeResult
    | CompactResult
    | Done
)

_CLASSES: tuple[type, ...] = (
    Item,
    PutResult,
    DeleteResult,
    Refused,
    Malformed,
    Rejected,
    GetResult,
    RangeResult,
    IncrementResult,
    TxnResult,
    BatchResult,
    LeaseResult,
    RevokeResult,
    CompactResult,
    Done,
)
_NUMBERS = {each: number for number, each in enumerate(_CLASSES)}
_TUPLE = len(_CLASSES) + 100  # stands for a plain tuple
_TUPLES = (Item, PutResult)
_NAMES = {each: [field.name for field in fields(each)] for each in _CLASSES if each not in _TUPLES}


def pack_result(result: Any) -> bytes:
    return bytes(msgpack.packb(_plain(result)))


def unpack_result(data: bytes) -> Any:
    """The inverse. Raises ValueError."""
    try:
        return _made(msgpack.unpackb(data, use_list=True))
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise ValueError(f"not a result: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, _TUPLES):
        return [_NUMBERS[type(value)], *value]
    if type(value) is tuple:
        return [_TUPLE, *map(_plain, value)]
    names = _NAMES.get(type(value))
    if names is None:
        return str(value) if isinstance(value, Reason) else value
    return [_NUMBERS[type(value)], *(_plain(getattr(value, name)) for name in names)]


def _made(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    number, *parts = value
    made = [_made(part) for part in parts]
    if number == _TUPLE:
        return tuple(made)
    if number == _NUMBERS[Rejected]:
        made[0] = Reason(made[0])
    return _CLASSES[number](*made)
