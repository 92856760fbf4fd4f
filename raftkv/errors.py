"""Typed errors. Each says what became of the operation, and what it means over HTTP.

Three outcomes, never two: an operation is done, definitely not done (``not_applied``), or ``unknown``: it may
have been applied, or may be later.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    NOT_APPLIED = "not_applied"
    UNKNOWN = "unknown"


class RaftkvError(Exception):
    """What can go wrong for a client. ``code`` and ``status`` are fixed by the class; ``title`` is its one
    line.
    """

    status = 500
    code = "internal"
    title = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        outcome: Outcome = Outcome.NOT_APPLIED,
        leader: str | None = None,
        retry_after_ms: int | None = None,
        extra: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """``extra`` and ``headers``: what an answer over HTTP says beside it."""
        super().__init__(detail)
        self.detail = detail
        self.outcome = outcome
        self.leader = leader
        self.retry_after_ms = retry_after_ms
        self.extra = extra or {}
        self.headers = headers or {}


class BadRequest(RaftkvError):
    status, code, title = 400, "bad_request", "Bad request"


class KeyNotFound(RaftkvError):
    status, code, title = 404, "key_not_found", "No such key"


class NotFound(RaftkvError):
    status, code, title = 404, "not_found", "No such resource"


class MethodNotAllowed(RaftkvError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class FutureRevision(RaftkvError):
    status, code, title = 400, "future_revision", "No such revision yet"


class NotANumber(RaftkvError):
    status, code, title = 409, "not_a_number", "The value is no number"


class NumberTooLarge(RaftkvError):
    status, code, title = 409, "number_too_large", "The number would be too large"


class RevisionCompacted(RaftkvError):
    status, code, title = 410, "compacted", "This revision is compacted"


class ConditionFailed(RaftkvError):
    status, code, title = 412, "condition_failed", "Condition failed"


class TooLarge(RaftkvError):
    status, code, title = 413, "too_large", "Too large"


class UriTooLong(RaftkvError):
    status, code, title = 414, "uri_too_long", "Request line too long"


class TokenReused(RaftkvError):
    status, code, title = 422, "token_reused", "The idempotency key was used for another request"


class TooManyLeases(RaftkvError):
    status, code, title = 429, "too_many_leases", "Too many leases"


class TooManyRequests(RaftkvError):
    status, code, title = 429, "too_many_requests", "Too many requests wait on this node"


class NoQuorum(RaftkvError):
    """No leader was known when the time was up. The outcome says whether a write had left this node."""

    status, code, title = 503, "no_quorum", "No leader, or no majority behind it"


class TooStale(RaftkvError):
    status, code, title = 503, "too_stale", "This node's state may be older than was asked for"


class NotReached(RaftkvError):
    status, code, title = 503, "revision_not_reached", "This node has not applied that revision yet"


class NoSuccessor(RaftkvError):
    status, code, title = 503, "no_successor", "Nobody could take over the lead"


class ChangeRefused(RaftkvError):
    status, code, title = 409, "change_refused", "The members can't be changed so"


class NoSuchLease(RaftkvError):
    """It never was, or has ended, and all that went with it is gone."""

    status, code, title = 404, "no_such_lease", "No such lease"


class LeaseExists(RaftkvError):
    status, code, title = 409, "lease_exists", "There is such a lease already"


class LockHeld(RaftkvError):
    """``extra["holder"]`` says by whom."""

    status, code, title = 409, "lock_held", "Another holds it"


class NotHolder(RaftkvError):
    status, code, title = 409, "not_holder", "It is not held with this lease"


class UpgradeUnfinished(RaftkvError):
    status, code, title = 503, "upgrade_unfinished", "Not all members understand this yet"


class SnapshotFailed(RaftkvError):
    status, code, title = 503, "snapshot_failed", "No snapshot was taken"


class ShuttingDown(RaftkvError):
    status, code, title = 503, "shutting_down", "This node is stopping"


class TimedOut(RaftkvError):
    """There is a leader, but the answer did not come in time."""

    status, code, title = 504, "timeout", "No answer in time"


class QuotaExceeded(RaftkvError):
    status, code, title = 507, "quota_exceeded", "The store is full"


class StartError(Exception):
    """The node can't start, or can't go on; the message is one line that says why and what to do.

    ``exit_code`` follows sysexits: 65 damaged data, 70 broken invariant, 73 data directory unusable, 74 disk
    failed, 78 configuration.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
