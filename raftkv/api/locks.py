"""``/v1/locks/{name}``: acquire, release, look. What there is to a lock is in ``ports.Queues``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.consistency import CONSISTENCY_PARAMS, Freshness, await_consistency
from raftkv.api.fields import answer, document, lease_id, lease_or_ttl, name_of, not_allowed, value_of
from raftkv.api.form import Fields, form_of
from raftkv.api.gone import while_connected
from raftkv.api.limits import Limits
from raftkv.api.params import duration_ms, number_of, parse_query, text_of, timeout_ms
from raftkv.api.writes import Writes, token_of
from raftkv.errors import BadRequest
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
    holder: str  # what whoever is first is called

    def __init__(self, service: Service, machine: KvMachine, limits: Limits, writes: Writes) -> None:
        self._service = service
        self._writes = writes
        self._machine = machine
        self._limits = limits
        self._methods: dict[str, Handler] = {
            "GET": self.look,
            "HEAD": self.look,
            "POST": self.acquire,
            "DELETE": self.release,
        }
        self.routes = {"/{name}": self._methods}

    async def one(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        """``rest``: what follows on the path of all, percent-encoded."""
        return await self._call(self._methods, request, self._queue(rest))

    def _queue(self, raw_name: str) -> Queue:
        return Queue(self.kind, name_of(raw_name, f"{self.what}'s name", self._limits.max_key_bytes))

    async def _call(
        self, methods: dict[str, Handler], request: web.BaseRequest, queue: Queue
    ) -> web.StreamResponse:
        handler = methods.get(request.method)
        if handler is None:
            raise not_allowed(request.method, methods)
        return await handler(request, queue)

    async def acquire(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """``{"ttl": "10s"}``, or ``{"lease": 7}``, and a ``value`` for others to see; ``?wait=30s``."""
        params, timeout = self._params(request, "wait")
        wait = text_of(params, "wait")
        wait_ms = 0 if wait is None else duration_ms(wait, "wait")
        if wait_ms > MAX_WAIT_MS:
            raise BadRequest(f"wait must be at most {MAX_WAIT_MS}ms, got {wait!r}")
        body = await document(request, timeout, _FIELDS)
        lease, ttl_ms = lease_or_ttl(body)
        candidate = Candidate(value_of(body), lease, ttl_ms, token_of(request.headers))
        await self._check_quota(queue, candidate.value, timeout, candidate.token)
        place = await while_connected(
            request, self._acquired(queue, candidate, wait_ms=wait_ms, timeout_ms=timeout)
        )
        return self._granted(request, queue, place)

    async def _acquired(
        self, queue: Queue, candidate: Candidate, *, wait_ms: float, timeout_ms: float
    ) -> Place:
        return await self._service.queues.acquire(queue, candidate, wait_ms=wait_ms, timeout_ms=timeout_ms)

    async def _check_quota(self, queue: Queue, value: bytes, timeout_ms: float, token: str | None) -> None:
        adds_bytes = len(queue.prefix) + len(value)
        if self._writes.exceeds_quota(adds_bytes):
            await self._writes.check_quota(adds_bytes, timeout_ms, token)

    async def release(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """``?lease=`` or ``?fencing_token=``. Whose lease waits in the queue leaves it. 0 deleted: there was
        no such place (any more).
        """
        params, timeout = self._params(request, "lease", "fencing_token")
        if ("lease" in params) == ("fencing_token" in params):
            raise BadRequest("give either ?lease= or ?fencing_token=")
        lease = lease_id(params["lease"]) if "lease" in params else 0
        token = number_of(params, "fencing_token", 0, 1, 10**18 - 1)
        done = await self._service.queues.release(
            queue, lease=lease, token=token, timeout_ms=timeout, once=token_of(request.headers)
        )
        return self._answer(request, {"deleted": done.deleted, "revision": done.revision})

    async def look(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        freshness = await await_consistency(self._service, self._limits, params)
        queued = places(self._machine.store, queue)
        fields = form_of(request.headers).fields
        found = {
            **fields("name", queue.name),
            self.holder: holder_fields(queued[0], fields) if queued else None,
            "waiters": max(0, len(queued) - 1),
            "revision": self._machine.store.revision,
        }
        return self._answer(request, found, freshness)

    def _granted(self, request: web.BaseRequest, queue: Queue, place: Place) -> Answer:
        fields = form_of(request.headers).fields
        found = {**fields("name", queue.name), **holder_fields(place, fields), **fields("key", place.key)}
        return self._answer(request, found)

    def _answer(
        self, request: web.BaseRequest, found: dict[str, Any], freshness: Freshness | None = None
    ) -> Answer:
        return answer(request, self._service, found, self._machine.store.revision, freshness=freshness)

    def _params(self, request: web.BaseRequest, *others: str) -> tuple[dict[str, bytes], float]:
        params = parse_query(request.rel_url.raw_query_string, ("timeout", *others))
        limits = self._limits
        return params, timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)


class LocksHandlers(QueueHandlers):
    kind, what, holder = LOCK, "lock", "holder"


def holder_fields(place: Place, fields: Fields) -> dict[str, Any]:
    return {"lease": place.lease, "fencing_token": place.token, **fields("value", place.value)}
