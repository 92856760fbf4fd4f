"""Asks many nodes for their status at once: one thread an endpoint, answers through one queue.

A thread an endpoint, so that a node that hangs delays nobody else's row.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raftkv.client import Endpoint, NoReply, NotSent, Request, exchange


@dataclass(frozen=True, slots=True)
class Look:
    """One look at an endpoint: its report, or why there is none."""

    endpoint: Endpoint
    report: Mapping[str, Any] | None
    reason: str


def look_at(endpoint: Endpoint, timeout_s: float) -> Look:
    """Ask one node for ``/v1/status``. Raises nothing."""
    try:
        reply = exchange(endpoint, Request("GET", "/v1/status"), timeout_s)
    except (NotSent, NoReply) as error:
        return Look(endpoint, None, str(error))
    if reply.status != 200:
        return Look(endpoint, None, f"answered {reply.status}")
    try:
        report = json.loads(reply.body)
    except ValueError:
        report = None
    return (
        Look(endpoint, report, "") if isinstance(report, dict) else Look(endpoint, None, "is no raftkv node")
    )


def look_at_all(endpoints: Iterable[Endpoint], timeout_s: float) -> list[Look]:
    """One look at each, all at the same time, in the given order."""
    wanted = list(endpoints)
    poller = Poller(timeout_s, interval_s=None)
    for endpoint in wanted:
        poller.watch(endpoint)
    looks = {look.endpoint: look for look in (poller.looks.get() for _ in wanted)}
    return [looks[endpoint] for endpoint in wanted]


def advertised(endpoints: Iterable[Endpoint], timeout_s: float) -> list[Endpoint]:
    """The members' client URLs as the first node that answers ``/v1/cluster`` knows them."""
    for endpoint in endpoints:
        try:
            reply = exchange(endpoint, Request("GET", "/v1/cluster"), timeout_s)
            members = json.loads(reply.body)["members"] if reply.status == 200 else []
            urls = [member.get("url") for member in members]
            return [Endpoint.parse(url) for url in urls if url]
        except (NotSent, NoReply, ValueError, KeyError, TypeError, AttributeError):
            continue
    return []


class Poller:
    """Looks at every watched endpoint each ``interval_s`` (None: once); ``looks`` holds what was seen."""

    MAX_WAITING_LOOKS = 1_000  # a reader this far behind makes the threads wait

    def __init__(self, timeout_s: float, interval_s: float | None) -> None:
        self.looks: queue.Queue[Look] = queue.Queue(self.MAX_WAITING_LOOKS)
        self._timeout_s = timeout_s
        self._interval_s = interval_s
        self._stopped = threading.Event()

    def watch(self, endpoint: Endpoint) -> None:
        # Daemons: a node that hangs must not hold up the command's end.
        threading.Thread(target=self._run, args=(endpoint,), daemon=True, name=f"look at {endpoint}").start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, endpoint: Endpoint) -> None:
        while not self._stopped.is_set():
            self.looks.put(look_at(endpoint, self._timeout_s))
            if self._interval_s is None or self._stopped.wait(self._interval_s):
                return
