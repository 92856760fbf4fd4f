"""What can become of a request, as its sender sees it: the three outcomes, and why.

Every message is one line for a person and ends in what to do. Nothing here knows HTTP libraries or the
command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """An error answer, read from ``application/problem+json`` (RFC 9457); ``outcome`` None if it has none."""

    status: int
    code: str
    detail: str
    outcome: str | None
    retry_after_ms: int | None


class ClientError(Exception):
    """The request was not done, or may not have been; the class says which."""


class Refused(ClientError):
    """Definitely not done: a node answered so, and asking again changes nothing."""

    def __init__(self, problem: Problem) -> None:
        wait = f" (try again in {problem.retry_after_ms} ms)" if problem.retry_after_ms is not None else ""
        super().__init__(problem.detail + wait)
        self.problem = problem


class NoQuorum(ClientError):
    """Definitely not done: nodes answer, but none of them has a leader with a majority behind it."""


class Unreachable(ClientError):
    """Definitely not done: no endpoint answered.

    ``failures``: (endpoint, reason) of each one tried, in order.
    """

    def __init__(self, failures: Sequence[tuple[str, str]]) -> None:
        tried = ", ".join(f"{endpoint} ({reason})" for endpoint, reason in failures)
        super().__init__(
            f"no endpoint answered: {tried}. Start the cluster, or name another with --endpoints"
        )
        self.failures = tuple(failures)


class OutcomeUnknown(ClientError):
    """A write that may have happened, or may still happen: its sender was left without a definite answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"outcome unknown: {reason}. The write may have happened, or may still happen: "
            "read the key before you write again"
        )
        self.reason = reason
