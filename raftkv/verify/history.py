"""What clients asked, when, and what they were answered: the words in which a history is written.

Rules: times are seconds on one clock that all clients share; an operation took effect at one moment between
its call and its return, both included. A field that is None was not observed, and is not checked. Must not
know how a history is judged, nor anything of the store it judges but its public answers (docs/verify.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Outcome(StrEnum):
    OK = "ok"  # answered: done, refused by its condition, or read
    FAIL = "fail"  # it did not happen, and never will
    UNKNOWN = "unknown"  # it may have happened, may yet, or never will


class ConditionKind(StrEnum):
    EXISTS = "exists"
    REVISION_IN = "revision_in"
    ABSENT = "absent"
    REVISION_NOT_IN = "revision_not_in"


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of the key's ``mod_revision``, 0 where it is absent."""

    kind: ConditionKind
    revisions: tuple[int, ...] = ()

    def holds(self, mod_revision: int) -> bool:
        match self.kind:
            case ConditionKind.EXISTS:
                return mod_revision != 0
            case ConditionKind.ABSENT:
                return mod_revision == 0
            case ConditionKind.REVISION_IN:
                return mod_revision in self.revisions
            case ConditionKind.REVISION_NOT_IN:
                return mod_revision not in self.revisions


# -- what can be asked -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Put:
    key: bytes
    value: bytes
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    key: bytes
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """``stale``: asked for any state the cluster was in, not for the newest."""

    key: bytes
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Cas:
    """Set the value if it is ``expected``: the textbook's register. For ``models.Register`` only."""

    key: bytes
    expected: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class List:
    """One page: up to ``limit`` keys with ``start <= key < end`` (no end: to the last), ascending unless
    ``reverse``.
    """

    start: bytes = b""
    end: bytes | None = None
    limit: int = 100
    reverse: bool = False
    stale: bool = False


Action = Put | Delete | Get | Cas | List


# -- what can be answered; ``revision`` is the store's, when the operation took effect -----------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A key that is there. 0 < create_revision <= mod_revision; version counts its puts, from 1."""

    value: bytes | None = None
    create_revision: int | None = None
    mod_revision: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The put (or cas) was done. ``revision`` is its own."""

    revision: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """``deleted``: 1, and ``revision`` is its own; or 0: there was no such key."""

    deleted: int
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition didn't hold of ``mod_revision``, the key's (0: absent); nothing changed."""

    mod_revision: int | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """``item`` is None where there was no such key."""

    item: Item | None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """``more``: whether the range holds keys beyond these."""

    items: tuple[tuple[bytes, Item], ...]
    more: bool | None = None
    revision: int | None = None


Result = Written | Deleted | Refused | Read | Listed

ANSWERS: Mapping[type[Action], tuple[type[Result], ...]] = MappingProxyType(
    {
        Put: (Written, Refused),
        Delete: (Deleted, Refused),
        Cas: (Written, Refused),
        Get: (Read,),
        List: (Listed,),
    }
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of one client. ``end`` is when its answer came; infinity where none that tells did.

    Raises ValueError where the parts contradict each other.
    """

    client: str
    action: Action
    call: float
    end: float
    outcome: Outcome
    result: Result | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.call) or not self.end >= self.call:
            raise ValueError(f"it returns at {self.end}, before its call at {self.call}")
        if (self.outcome is Outcome.OK) != (self.result is not None):
            raise ValueError(
                f"an outcome {self.outcome} goes {'with' if self.result is None else 'without'} a result"
            )
        if self.outcome is Outcome.OK and math.isinf(self.end):
            raise ValueError("an operation that was answered has a time of return")
        if self.result is not None and not isinstance(self.result, ANSWERS[type(self.action)]):
            name = type(self.result).__name__.lower()
            raise ValueError(f"{type(self.action).__name__.lower()} can't be answered by {name}")

    @property
    def key(self) -> bytes | None:
        return None if isinstance(self.action, List) else self.action.key

    @property
    def stale(self) -> bool:
        return isinstance(self.action, Get | List) and self.action.stale

    @property
    def reads_only(self) -> bool:
        return isinstance(self.action, Get | List)

    @property
    def revision(self) -> int | None:
        """The store's revision as the answer tells it."""
        return None if self.result is None else self.result.revision

    @property
    def changed(self) -> bool:
        """Whether the answer says that the store changed."""
        result = self.result
        return isinstance(result, Written) or (isinstance(result, Deleted) and result.deleted == 1)


History = list[Operation]
