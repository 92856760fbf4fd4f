"""What a check comes to. Must not know which check it was."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from raftkv.verify.history import Operation


class Answer(StrEnum):
    LINEARIZABLE = "linearizable"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # the time or the memory was up: to be treated as a failure


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is one line; empty when all is well. ``culprits`` are the operations that can't be
    explained; ``order`` is the longest order that explains the rest, as far as the check made one.
    """

    answer: Answer
    reason: str = ""
    culprits: tuple[Operation, ...] = ()
    order: tuple[Operation, ...] = ()

    def __bool__(self) -> bool:
        return self.answer is Answer.LINEARIZABLE


SOUND = Verdict(Answer.LINEARIZABLE)


def refused(reason: str, *culprits: Operation) -> Verdict:
    return Verdict(Answer.REFUSED, reason, culprits)
