"""A lock, or the lead, held from the command line: a lease that a thread keeps alive, and its requests.

Rules:

- All requests here may be repeated: they name the lease, and a place in a queue is asked for by it. So each
  is sent to one endpoint after the other until one has answered.
- How long it is surely ours is reckoned by our own clock, from when the last keepalive that was
  answered was *sent*: nobody else can have it before that time is over, whatever became of us.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from raftkv.cli.output import document_of, printable, text_or_base64
from raftkv.client import (
    ClientError,
    Endpoint,
    NoReply,
    NotSent,
    Refused,
    Reply,
    Request,
    Unreachable,
    exchange,
)
from raftkv.client.failover import read_problem

LEASES = "/v1/leases"
PAUSE_S = 0.1  # after all endpoints have failed


class Lost(Exception):
    """The lease has ended, or may have."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What one at a time may hold: a lock, or the lead of an election. As text it is named for a person."""

    at: str  # "/v1/locks" or "/v1/elections"
    what: str  # "lock" or "lead of"
    name: bytes

    @property
    def path(self) -> str:
        return f"{self.at}/{quote(self.name, safe='')}"

    def __str__(self) -> str:
        return f"the {self.what} {printable(self.name)}"


def insist(
    endpoints: Sequence[Endpoint],
    asked: Callable[[], tuple[Request, float]],
    until_s: float,
    pause: Callable[[float], object] = time.sleep,
) -> Reply:
    """The first answer that settles it (2xx, or 4xx but 429), from any endpoint, however often it must be
    asked for, until ``until_s`` of the monotonic clock. ``asked`` gives what is asked next, and for how long
    at most; ``pause`` waits, and is true when nothing is to be asked any more.

    Raises ``Refused`` for a 4xx, else ``Unreachable``.
    """
    failures: list[tuple[str, str]] = []
    while True:
        failures.clear()
        for endpoint in endpoints:
            request, share_s = asked()
            share_s = min(share_s, until_s - time.monotonic())
            if share_s <= 0:
                break
            try:
                reply = exchange(endpoint, request, share_s)
            except (NotSent, NoReply) as error:
                failures.append((str(endpoint), str(error)))
                continue
            if reply.status < 300:
                return reply
            problem = read_problem(reply)
            if reply.status < 500 and reply.status != 429:
                raise Refused(problem)
            failures.append((str(endpoint), problem.detail))
        if time.monotonic() + PAUSE_S >= until_s or pause(PAUSE_S):
            raise Unreachable(failures)


def acquire(
    endpoints: Sequence[Endpoint],
    queue: Queue,
    lease: int,
    *,
    wait_s: float,
    timeout_s: float,
    value: bytes = b"",
) -> dict[str, Any]:
    """Wait for it to be ``lease``'s: its name, fencing token and lease, as a node says it.

    Raises ``Lost``, ``Refused`` with 409 (it is held, ``wait_s`` long), or ``Unreachable``.
    """
    # NB: asked again with the same lease, at any node, it keeps its place in the queue.
    body = json.dumps({"lease": lease, **(text_or_base64("value", value) if value else {})}).encode()
    deadline_s = time.monotonic() + wait_s

    def asked() -> tuple[Request, float]:
        left_s = max(0.0, deadline_s - time.monotonic())
        query = (("wait", f"{round(left_s * 1000)}ms"),)
        return Request("POST", queue.path, query, body), left_s + timeout_s

    try:
        return document_of(insist(endpoints, asked, deadline_s + timeout_s))
    except Refused as error:
        if error.problem.code == "no_such_lease":
            raise Lost(f"lease {lease} has ended") from error
        raise


class Holding:
    """A lease, kept alive from its grant on, until it is closed."""

    def __init__(self, endpoints: Sequence[Endpoint], ttl_ms: int, timeout_s: float) -> None:
        """Raises ``ClientError`` where none is granted in ``timeout_s``."""
        self._endpoints = endpoints
        self._ttl_s = ttl_ms / 1000
        self._stop = threading.Event()
        self._gone = False
        begun_s = time.monotonic()
        body = json.dumps({"ttl": f"{ttl_ms}ms"}).encode()
        # NB: one that is granted and not heard of ends by itself.
        request = Request("POST", LEASES, (), body)
        granted = document_of(insist(endpoints, lambda: (request, timeout_s / 2), begun_s + timeout_s))
        self.lease = int(granted["lease"])
        self._sure_until_s = begun_s + self._ttl_s
        self._thread = threading.Thread(target=self._keep_alive, daemon=True, name="keepalive")
        self._thread.start()

    @property
    def sure_s(self) -> float:
        """How long the lease surely lives from now on; below zero: it may have ended."""
        return float("-inf") if self._gone else self._sure_until_s - time.monotonic()

    def close(self, timeout_s: float) -> None:
        """Revoke the lease: all that goes with it is released. Raises ``ClientError`` where it can't be."""
        self._stop.set()
        if self._gone:
            return
        request = Request("DELETE", f"{LEASES}/{self.lease}")
        try:
            insist(self._endpoints, lambda: (request, timeout_s / 2), time.monotonic() + timeout_s)
        except Refused as error:
            if error.problem.code != "no_such_lease":  # which an earlier try may have ended
                raise

    def _keep_alive(self) -> None:
        request = Request("POST", f"{LEASES}/{self.lease}/keepalive", (), b"")
        share_s = self._ttl_s / 3
        while not self._stop.wait(share_s):
            sent_s = time.monotonic()

            def asked() -> tuple[Request, float]:
                nonlocal sent_s
                sent_s = time.monotonic()
                return request, share_s

            try:
                insist(self._endpoints, asked, self._sure_until_s, self._stop.wait)
            except ClientError:  # refused, or nobody answered until it was over
                self._gone = not self._stop.is_set()
                return
            self._sure_until_s = sent_s + self._ttl_s
