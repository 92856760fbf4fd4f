"""What can be asked of the store. Encoded once where a request arrives; opaque bytes elsewhere.

A command is a msgpack array ``[opcode, ...]``. Opcodes, condition kinds and the like are in logs on disk:
never renumber, only add. Revisions: one global counter, grown by 1 with every command that changes something,
whatever the number of keys. What comes back is in ``results``.

Opcodes from 3 on, and a PUT with a lease or a time to live, are of machine level 2 (``levels``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack


class Opcode(IntEnum):
    PUT = 1  # [1, key, value, content_type | nil, condition | nil], and from level 2 on [..., lease, ttl_ms]
    DELETE = 2  # [2, key, condition | nil]
    LEVEL = 3  # [3, level]: from here on all nodes understand this level's commands
    TICK = 4  # [4]: nothing but that time goes on
    GET = 5  # [5, key]; only within others
    RANGE = 6  # [6, start, end | nil, limit, flags]; only within others
    DELETE_RANGE = 7  # [7, start, end | nil]
    INCREMENT = 8  # [8, key, by]
    TXN = 9  # [9, [compare ...], [command ...], [command ...]]: one branch, whole or not
    BATCH = 10  # [10, [command ...]]: each for itself, in order
    ONCE = 11  # [11, token, fingerprint, command]
    GRANT = 12  # [12, lease | 0, ttl_ms]
    KEEP_ALIVE = 13  # [13, lease]
    REVOKE = 14  # [14, lease]
    COMPACT = 15  # [15, revision]


REVERSE, KEYS_ONLY = 1, 2  # flags of a RANGE


class ConditionKind(IntEnum):
    EXISTS = 1  # If-Match: *
    REVISION_IN = 2  # If-Match: "1", "2"; ?if_revision=1
    ABSENT = 3  # If-None-Match: *; ?if_absent=true
    REVISION_NOT_IN = 4  # If-None-Match: "1"


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the key's current ``mod_revision`` (0 where the key is absent) for the command to
    apply.
    """

    kind: ConditionKind
    revisions: tuple[int, ...] = ()


class Target(IntEnum):
    """What of a key is compared. Of a key that isn't there all numbers are 0, and no value compares."""

    VALUE = 1
    VERSION = 2
    CREATE_REVISION = 3
    MOD_REVISION = 4
    LEASE = 5
    EXISTS = 6  # with 1 or 0


class Relation(IntEnum):
    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    GREATER = 4


@dataclass(frozen=True, slots=True)
class Compare:
    """``target`` of ``key`` stands in ``relation`` to ``operand``: bytes for VALUE, else a number. With an
    ``end``, of every key from ``key`` to before it (b"": to the last); where there is none, as of one that
    isn't there (etcd's rule).
    """

    key: bytes
    target: Target
    relation: Relation
    operand: bytes | int
    end: bytes | None = None


_packer = msgpack.Packer()


def _pack(*command: Any) -> bytes:
    return bytes(_packer.pack(command))


def encode_put(
    key: bytes,
    value: bytes,
    content_type: str | None = None,
    condition: Condition | None = None,
    *,
    lease: int = 0,
    ttl_ms: int = 0,
) -> bytes:
    """``lease``: an existing one that the key goes with; or ``ttl_ms``: a new one of its own."""
    if lease or ttl_ms:
        return _pack(1, key, value, content_type, _encode_condition(condition), lease, ttl_ms)
    return bytes(_packer.pack((1, key, value, content_type, _encode_condition(condition))))


def encode_delete(key: bytes, condition: Condition | None = None) -> bytes:
    return bytes(_packer.pack((2, key, _encode_condition(condition))))


def encode_level(level: int) -> bytes:
    return _pack(3, level)


def encode_tick() -> bytes:
    return _pack(4)


def encode_get(key: bytes) -> bytes:
    return _pack(5, key)


def encode_range(
    start: bytes, end: bytes | None, limit: int, *, reverse: bool = False, keys_only: bool = False
) -> bytes:
    return _pack(6, start, end, limit, reverse * REVERSE | keys_only * KEYS_ONLY)


def encode_delete_range(start: bytes, end: bytes | None) -> bytes:
    return _pack(7, start, end)


def encode_increment(key: bytes, by: int) -> bytes:
    """The value is a decimal number in ASCII; an absent key counts as 0."""
    return _pack(8, key, by)


def encode_txn(compares: Sequence[Compare], then: Sequence[bytes], otherwise: Sequence[bytes]) -> bytes:
    """``then``, ``otherwise``: encoded PUT, DELETE, GET, RANGE, DELETE_RANGE, INCREMENT and TXN."""
    packed = [(each.key, each.end, int(each.target), int(each.relation), each.operand) for each in compares]
    return b"\x94\x09" + _pack(*packed) + _spliced(then) + _spliced(otherwise)


def encode_batch_of(commands: Sequence[bytes]) -> bytes:
    return b"\x92\x0a" + _spliced(commands)


def encode_puts(puts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A batch of puts of keys and values, without anything else; all in one call, for there may be many."""
    return bytes(_packer.pack((10, [(1, key, value, None, None) for key, value in puts])))


def encode_once(token: str, fingerprint: bytes, command: bytes) -> bytes:
    """``command`` is applied once for all that come with this ``token`` and ``fingerprint``."""
    return b"\x94\x0b" + bytes(_packer.pack(token)) + bytes(_packer.pack(fingerprint)) + command


def encode_grant(ttl_ms: int, lease: int = 0) -> bytes:
    """``lease``: the id that it is to have; 0: the machine chooses."""
    return _pack(12, lease, ttl_ms)


def encode_keep_alive(lease: int) -> bytes:
    return _pack(13, lease)


def encode_revoke(lease: int) -> bytes:
    return _pack(14, lease)


def encode_compact(revision: int) -> bytes:
    """Forget what was before ``revision``; it can still be read itself."""
    return _pack(15, revision)


def _spliced(commands: Sequence[bytes]) -> bytes:
    """A msgpack array of what is encoded already."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(len(commands))
    return bytes(packer.bytes()) + b"".join(commands)


def _encode_condition(condition: Condition | None) -> tuple[int, tuple[int, ...]] | None:
    return None if condition is None else (condition.kind, condition.revisions)
