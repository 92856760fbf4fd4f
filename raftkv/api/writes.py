"""How a command of a client is proposed: once for each idempotency key, within the quota, and only where the
machine understands it. What the machine answers instead of doing it becomes an error here.
"""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

from multidict import MultiMapping

from raftkv.api.limits import Limits
from raftkv.errors import (
    BadRequest,
    ConditionFailed,
    FutureRevision,
    LeaseExists,
    NoSuchLease,
    NotANumber,
    NumberTooLarge,
    QuotaExceeded,
    RaftkvError,
    RevisionCompacted,
    TokenReused,
    TooLarge,
    TooManyLeases,
)
from raftkv.kv.commands import encode_once
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import Malformed, Reason, Refused, Rejected
from raftkv.ports import Service

TOKEN_HEADER = "Idempotency-Key"
_MAX_TOKEN_CHARS = 256
_FINGERPRINT_BYTES = 16

_REASONS: dict[Reason, type[RaftkvError]] = {
    Reason.NO_SUCH_LEASE: NoSuchLease,
    Reason.LEASE_EXISTS: LeaseExists,
    Reason.TOO_MANY_LEASES: TooManyLeases,
    Reason.NOT_A_NUMBER: NotANumber,
    Reason.NUMBER_TOO_LARGE: NumberTooLarge,
    Reason.TOKEN_REUSED: TokenReused,
    Reason.FUTURE_REVISION: FutureRevision,
    Reason.COMPACTED: RevisionCompacted,
    Reason.ANSWER_TOO_LARGE: TooLarge,
}


class Writes:
    """Of one node; all handlers that change something share it."""

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._service = service
        self._machine = machine
        self._store = machine.store
        self._quota_bytes = limits.quota_bytes or float("inf")

    async def propose(
        self,
        headers: MultiMapping[str],
        command: bytes,
        timeout_ms: float,
        *,
        feature: str | None = None,
        adds_bytes: int = 0,
    ) -> Any:
        """The machine's result, which isn't Refused, Malformed or Rejected: for those an error is raised,
        as for what ``Service.propose`` and ``Service.require`` raise.

        ``feature``: of ``kv.levels.FEATURES``, what the command needs beyond the first level. ``adds_bytes``:
        how much it may store; see ``check_quota``.
        """
        result = await self.result(headers, command, timeout_ms, feature=feature, adds_bytes=adds_bytes)
        if isinstance(result, Refused | Malformed | Rejected):
            raise refusal(result)
        return result

    async def result(
        self,
        headers: MultiMapping[str],
        command: bytes,
        timeout_ms: float,
        *,
        feature: str | None = None,
        adds_bytes: int = 0,
    ) -> Any:
        """As ``propose``, but the machine's result whatever it is."""
        token = token_of(headers)
        if adds_bytes and self.exceeds_quota(adds_bytes):
            await self.check_quota(adds_bytes, timeout_ms, token)
        if token is not None:
            fingerprint = sha256(command).digest()[:_FINGERPRINT_BYTES]
            command = encode_once(token, fingerprint, command)
            feature = feature or "tokens"
        if feature is not None:
            loop = asyncio.get_running_loop()
            begun_s = loop.time()
            await self._service.require(feature, timeout_ms)
            timeout_ms = max(0.0, timeout_ms - (loop.time() - begun_s) * 1000)
        return await self._service.propose(command, timeout_ms)

    def exceeds_quota(self, adds_bytes: int) -> bool:
        """Whether the store, as this node has it, would be beyond its quota with ``adds_bytes`` more (of keys
        and values), whatever is replaced. What is under way already isn't counted: it may go beyond by that.
        """
        return self._store.size_bytes + adds_bytes > self._quota_bytes

    async def check_quota(self, adds_bytes: int, timeout_ms: float, token: str | None = None) -> None:
        """Raises ``QuotaExceeded``, or what ``Service.barrier`` raises, where ``exceeds_quota`` still holds
        when this node has seen all that was done before: it might not know yet that keys were deleted, or
        that the write is there already, under its ``token``.
        """
        await self._service.barrier(timeout_ms)
        size_bytes = self._store.size_bytes
        is_known = token is not None and self._machine.tokens.get(token) is not None
        if not is_known and self.exceeds_quota(adds_bytes):
            raise QuotaExceeded(
                f"the store holds {size_bytes} bytes of at most {self._quota_bytes}: delete keys, or restart "
                "the nodes with a larger --quota-bytes",
                extra={"size_bytes": size_bytes, "quota_bytes": self._quota_bytes},
            )


def refusal(result: Refused | Malformed | Rejected) -> RaftkvError:
    """What to tell of a command that changed nothing."""
    if isinstance(result, Refused):
        return ConditionFailed(
            "the key is not as the request wanted it",
            extra={"mod_revision": result.mod_revision, "revision": result.revision},
        )
    if isinstance(result, Malformed):
        return BadRequest(
            f"the cluster can't read this command: {result.reason}; are all nodes of one version?"
        )
    return _REASONS[result.reason](result.detail, extra={"revision": result.revision})


def token_of(headers: MultiMapping[str]) -> str | None:
    """The idempotency key of a request, where it has one."""
    token = headers.get(TOKEN_HEADER)
    if token is None:
        return None
    if not token or len(token) > _MAX_TOKEN_CHARS or not (token.isascii() and token.isprintable()):
        raise BadRequest(
            f"{TOKEN_HEADER} must be 1 to {_MAX_TOKEN_CHARS} printable ASCII characters, as a UUID is"
        )
    return token
