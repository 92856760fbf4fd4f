"""What can be asked of the store, and what comes back. Encoded once where a request arrives; opaque bytes
elsewhere.

A command is a msgpack array ``[opcode, key, ...]``. Opcodes and condition kinds are in logs on disk: never
renumber, only add. Revisions: one global counter, grown by 1 with every write that changes something.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import msgpack


class Opcode(IntEnum):
    PUT = 1  # [1, key, value, content_type | nil, condition | nil]
    DELETE = 2  # [2, key, condition | nil]


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


@dataclass(frozen=True, slots=True)
class PutResult:
    revision: int  # the store's, after this put; the key's new mod_revision
    version: int  # how often the key was put since it was created; 1 for a new one

    @property
    def created(self) -> bool:
        return self.version == 1


@dataclass(frozen=True, slots=True)
class DeleteResult:
    deleted: int  # 0 or 1
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


Result = PutResult | DeleteResult | Refused | Malformed

_packer = msgpack.Packer()


def encode_put(
    key: bytes, value: bytes, content_type: str | None = None, condition: Condition | None = None
) -> bytes:
    return bytes(_packer.pack((1, key, value, content_type, _encode_condition(condition))))


def encode_delete(key: bytes, condition: Condition | None = None) -> bytes:
    return bytes(_packer.pack((2, key, _encode_condition(condition))))


def _encode_condition(condition: Condition | None) -> tuple[int, tuple[int, ...]] | None:
    return None if condition is None else (condition.kind, condition.revisions)
