"""``/v1/locks/{name}``: acquire, release, look. What there is to a lock is in ``ports.Queues``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from raftkv.api.body import json_response
from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency
from raftkv.api.fields import (
    document,
    duration_ms,
    idempotency_key,
    lease_id,
    lease_or_ttl,
    name_of,
    value_of,
)
from raftkv.api.gone import while_connected
from raftkv.api.kv import key_fields, text_or_base64
from raftkv.api.limits import Limits
from raftkv.api.params import number_of, parse_query, text_of, timeout_ms
from raftkv.errors import BadRequest, MethodNotAllowed
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import LOCK, Place, Queue, places
from raftkv.ports import Candidate, Service

PATH = "/v1/locks"
MAX_WAIT_MS = 3_600_000
_FIELDS = ("ttl", "lease", "value", "value_base64")

Handler = Callable[[web.BaseRequest, Queue], Awaitable[web.StreamResponse]]


class QueueHandlers:
    """What locks and elections have in common: two names for one thing."""

    kind: bytes
    what: str

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._service = service
        self._machine = machine
        self._limits = limits
        self._methods: dict[str, Handler] = {
            "GET": self.look,
            "HEAD": self.look,
            "POST": self.acquire,
            "DELETE": self.release,
        }

    async def one(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        """``rest``: what follows on the path of all, percent-encoded."""
        queue = Queue(self.kind, name_of(rest, f"{self.what}'s name", self._limits.max_key_bytes))
        return await self._call(self._methods, request, queue)

    async def _call(
        self, methods: dict[str, Handler], request: web.BaseRequest, queue: Queue
    ) -> web.StreamResponse:
        handler = methods.get(request.method)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            raise MethodNotAllowed(
                f"{request.method} isn't possible here; use {allowed}", extra={"allow": allowed}
            )
        return await handler(request, queue)

    async def acquire(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """``{"ttl": "10s"}``, or ``{"lease": 7}``, and a ``value`` for others to see; ``?wait=30s``."""
        params, timeout = self._params(request, "wait")
        wait = text_of(params, "wait")
        wait_ms = 0 if wait is None else duration_ms(wait, "wait", 0, MAX_WAIT_MS)
        body = await document(request, timeout, _FIELDS)
        lease, ttl_ms = lease_or_ttl(body)
        candidate = Candidate(value_of(body), lease, ttl_ms, idempotency_key(request))
        place = await while_connected(
            request, self._acquired(queue, candidate, wait_ms=wait_ms, timeout_ms=timeout)
        )
        return json_response(self._granted(queue, place))

    async def _acquired(
        self, queue: Queue, candidate: Candidate, *, wait_ms: float, timeout_ms: float
    ) -> Place:
        return await self._service.queues.acquire(queue, candidate, wait_ms=wait_ms, timeout_ms=timeout_ms)

    async def release(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """``?lease=`` or ``?fencing_token=``. Whose lease waits in the queue leaves it. 0 deleted: there was
        no such place (any more).
        """
        params, timeout = self._params(request, "lease", "fencing_token")
        if ("lease" in params) == ("fencing_token" in params):
            raise BadRequest("give either ?lease= or ?fencing_token=")
        lease = lease_id(params["lease"]) if "lease" in params else 0
        token = number_of(params, "fencing_token", 0, 1, 10**18 - 1)
        done = await self._service.queues.release(queue, lease=lease, token=token, timeout_ms=timeout)
        return json_response({"deleted": done.deleted, "revision": done.revision})

    async def look(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        await await_consistency(self._service, self._limits, params)
        queued = places(self._machine.store, queue)
        first = holder_fields(queued[0]) if queued else None
        return json_response(
            {
                **text_or_base64("name", queue.name),
                self._holder: first,
                "waiters": max(0, len(queued) - 1),
                "revision": self._machine.store.revision,
            }
        )

    _holder = "holder"

    def _granted(self, queue: Queue, place: Place) -> dict[str, Any]:
        return {
            **text_or_base64("name", queue.name),
            "lease": place.lease,
            "fencing_token": place.token,
            **key_fields(place.key),
            **text_or_base64("value", place.value),
        }

    def _params(self, request: web.BaseRequest, *others: str) -> tuple[dict[str, bytes], float]:
        params = parse_query(request.rel_url.raw_query_string, ("timeout", *others))
        limits = self._limits
        return params, timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)


class LocksHandlers(QueueHandlers):
    kind, what = LOCK, "lock"


def holder_fields(place: Place) -> dict[str, Any]:
    return {
        "lease": place.lease,
        "fencing_token": place.token,
        **text_or_base64("value", place.value),
    }
