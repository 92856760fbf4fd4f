"""A request to a cluster: which endpoint to ask, when to ask the next one, and when that would be wrong.

Rules:
- Reads go on freely: to the next endpoint after any failure that another node might not have.
- A write goes on only when it definitely did not happen: the endpoint was never reached, or answered 503
  with outcome ``not_applied``. Anything ambiguous ends it as ``OutcomeUnknown``: sent again, it might happen
  twice. One with an idempotency key can't: it goes on, and is unknown only if nobody says what became of it.
- One pass over the endpoints, within one timeout. Each gets half of the time that is left, the last one all
  of it: a node that is stopped or cut off can't use up the time of the healthy ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from raftkv.client.download import Download, begin_download
from raftkv.client.errors import ClientError, NoQuorum, OutcomeUnknown, Problem, Refused, Unreachable
from raftkv.client.exchange import Endpoint, NoReply, NotSent, Reply, Request, exchange

Answer = TypeVar("Answer")

IDEMPOTENCY_KEY = "Idempotency-Key"
MAX_GRACE_S = 0.5  # how much longer than a node may take its answer is waited for
MAX_SERVER_TIMEOUT_MS = 60_000  # nodes refuse a longer ?timeout=


class Cluster:
    """The endpoints of one cluster, in the order in which they are tried."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not endpoints or timeout_s <= 0:
            raise ValueError("a cluster needs at least one endpoint and a timeout above zero")
        self.endpoints = tuple(endpoints)
        self.timeout_s = timeout_s
        self._clock = clock

    def read(self, request: Request) -> Reply:
        """The first good answer (2xx) of any endpoint.

        Raises ``Refused`` (4xx: it would be the same anywhere), ``NoQuorum`` or ``Unreachable``.
        """

        def ask(endpoint: Endpoint, share_s: float) -> tuple[Reply, Reply]:
            reply = exchange(endpoint, request, share_s, _server_timeout_ms(share_s))
            return reply, reply

        return self._first_good(ask)

    def download(self, request: Request, stall_s: float, *, peeks: bool = True) -> Download:
        """The first good answer of any endpoint, of which (``peeks``) the first bytes are here. The rest is
        read from that endpoint or not at all, and may take ``stall_s`` for each piece.

        Raises as ``read`` does.
        """

        def ask(endpoint: Endpoint, share_s: float) -> tuple[Reply, Download]:
            server_timeout_ms = _server_timeout_ms(share_s)
            download = begin_download(
                endpoint,
                request,
                share_s,
                server_timeout_ms=server_timeout_ms,
                stall_s=stall_s,
                peeks=peeks,
            )
            if download.status < 300:
                return Reply(endpoint, download.status, download.headers, b""), download
            try:
                return download.whole(), download
            finally:
                download.close()

        return self._first_good(ask)

    def _first_good(self, ask: Callable[[Endpoint, float], tuple[Reply, Answer]]) -> Answer:
        """``ask`` gives what can be judged of an answer, and the answer."""
        failed = _Failures()
        for endpoint, share_s in self._shares():
            try:
                reply, answer = ask(endpoint, share_s)
            except (NotSent, NoReply) as error:
                failed.unreachable(endpoint, str(error))
                continue
            if reply.status < 300:
                return answer
            problem = read_problem(reply)
            if reply.status < 500 and reply.status != 429:
                raise Refused(problem)
            failed.answered(endpoint, problem)
        raise failed.error()

    def write(self, request: Request) -> Reply:
        """The answer (2xx) to a write that was done, once.

        Raises ``Refused``, ``NoQuorum`` or ``Unreachable``: it was not done; ``OutcomeUnknown``: who knows.
        """
        failed = _Failures()
        done_once = any(name == IDEMPOTENCY_KEY for name, _ in request.headers)
        unknown: OutcomeUnknown | None = None
        for endpoint, share_s in self._shares():
            try:
                reply = exchange(endpoint, request, share_s, _server_timeout_ms(share_s))
            except NotSent as error:
                failed.unreachable(endpoint, str(error))
                continue
            except NoReply as error:
                unknown = OutcomeUnknown(f"{endpoint}: {error}")
                if done_once:
                    continue
                raise unknown from error
            if reply.status < 300:
                return reply
            problem = read_problem(reply)
            # NB: a 5xx that doesn't say what became of the write (a proxy's, say) leaves it unknown.
            if problem.outcome == "unknown" or (problem.outcome is None and reply.status >= 500):
                unknown = OutcomeUnknown(f"{endpoint}: {problem.detail}")
                if done_once:
                    continue
                raise unknown
            if unknown is not None and reply.status == 507:  # of this attempt it is true
                raise unknown
            if reply.status != 503:
                raise Refused(problem)
            failed.answered(endpoint, problem)
        raise unknown or failed.error()

    def _shares(self) -> Iterator[tuple[Endpoint, float]]:
        deadline = self._clock() + self.timeout_s
        last = len(self.endpoints) - 1
        for number, endpoint in enumerate(self.endpoints):
            left_s = deadline - self._clock()
            if left_s <= 0:
                return
            yield endpoint, left_s if number == last else left_s / 2


class _Failures:
    """What became of the endpoints that were tried, and which error that makes of the whole."""

    def __init__(self) -> None:
        self._unreachable: list[tuple[str, str]] = []
        self._problems: list[tuple[str, Problem]] = []

    def unreachable(self, endpoint: Endpoint, reason: str) -> None:
        self._unreachable.append((str(endpoint), reason))

    def answered(self, endpoint: Endpoint, problem: Problem) -> None:
        self._problems.append((str(endpoint), problem))

    def error(self) -> ClientError:
        unavailable = [pair for pair in self._problems if pair[1].status == 503]
        if unavailable:
            said = "; ".join(f"{endpoint}: {problem.detail}" for endpoint, problem in unavailable)
            return NoQuorum(f"no node could do it now. {said}. See which nodes are missing: raftkv status")
        if self._problems:
            return Refused(self._problems[-1][1])
        return Unreachable(self._unreachable)


def read_problem(reply: Reply) -> Problem:
    """The problem document of an error answer; of an answer that has none, what can be said without it."""
    try:
        document = json.loads(reply.body) if "json" in reply.headers.get("content-type", "") else {}
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    outcome, retry_after_ms = document.get("outcome"), document.get("retry_after_ms")
    fallback = f"{reply.endpoint} answered {reply.status} without saying why: is it a raftkv node?"
    return Problem(
        status=reply.status,
        code=str(document.get("code", "")),
        detail=str(document.get("detail") or document.get("title") or fallback),
        outcome=outcome if isinstance(outcome, str) else None,
        retry_after_ms=retry_after_ms if isinstance(retry_after_ms, int) else None,
    )


def _server_timeout_ms(share_s: float) -> int:
    """Leave the node's own answer ("no leader in time") the time to arrive: it knows more than we do."""
    share_ms = round((share_s - min(MAX_GRACE_S, share_s / 5)) * 1000)
    return min(max(1, share_ms), MAX_SERVER_TIMEOUT_MS)
