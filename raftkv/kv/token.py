"""Idempotency tokens: what became of a command that its sender may send again, through any node.

A token is remembered for ``KEPT_MS`` of cluster time, unless more than ``MAX_TOKENS`` or ``MAX_BYTES`` came
since. With it the *fingerprint* of the command, so that another one under the same token is told apart, and
its packed result.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

KEPT_MS = 3_600_000
MAX_TOKENS = 100_000
MAX_BYTES = 16 << 20
_ENTRY_BYTES = 200


class Outcome(NamedTuple):
    time_ms: int  # when the command was applied
    fingerprint: bytes
    result: bytes


class Tokens:
    """In the order of their commands: the oldest goes first."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self._order: deque[str] = deque()  # NB: the first of a dict is far away where many before it are gone
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, token: str) -> Outcome | None:
        return self._outcomes.get(token)

    def add(self, token: str, outcome: Outcome) -> None:
        """``token`` is new."""
        self._outcomes[token] = outcome
        self._order.append(token)
        self._bytes += _size_of(token, outcome)
        while len(self._outcomes) > MAX_TOKENS or self._bytes > MAX_BYTES:
            self._remove_oldest()

    def forget(self, time_ms: int) -> None:
        """Those that are too old at ``time_ms``."""
        while self._order and self._outcomes[self._order[0]].time_ms + KEPT_MS <= time_ms:
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        token = self._order.popleft()
        self._bytes -= _size_of(token, self._outcomes.pop(token))

    def rows(self) -> dict[str, Outcome]:
        """A copy, in order."""
        return self._outcomes.copy()


def _size_of(token: str, outcome: Outcome) -> int:
    return len(token) + len(outcome.fingerprint) + len(outcome.result) + _ENTRY_BYTES
