"""``/v1/leases``: grant, look, keep alive, revoke."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from raftkv.api.answer import Answer
from raftkv.api.consistency import CONSISTENCY_PARAMS, Freshness, await_consistency
from raftkv.api.fields import answer, document, lease_id, not_allowed
from raftkv.api.form import form_of
from raftkv.api.limits import Limits
from raftkv.api.params import number_of, parse_query, timeout_ms, ttl_ms
from raftkv.api.writes import Writes
from raftkv.errors import NoSuchLease, NotFound
from raftkv.kv.commands import encode_grant, encode_keep_alive, encode_revoke
from raftkv.kv.lease import MAX_CHOSEN_ID, Lease
from raftkv.kv.machine import KvMachine
from raftkv.ports import Service

PATH = "/v1/leases"
_MAX_PAGE = 1_000

Handler = Callable[[web.BaseRequest, int], Awaitable[Answer]]


class LeasesHandlers:
    def __init__(self, service: Service, machine: KvMachine, limits: Limits, writes: Writes) -> None:
        self._service = service
        self._writes = writes
        self._machine = machine
        self._limits = limits
        self._one: dict[str, Handler] = {"GET": self.look, "HEAD": self.look, "DELETE": self.revoke}
        self._keepalive: dict[str, Handler] = {"POST": self.keep_alive}
        self.routes = {"/{id}": self._one, "/{id}/keepalive": self._keepalive}

    async def one(self, request: web.BaseRequest, rest: str) -> Answer:
        """``rest``: what follows on ``/v1/leases/``."""
        name, slash, action = rest.partition("/")
        if slash and action != "keepalive":
            raise NotFound(f"there is nothing at {PATH}/{rest}")
        methods = self._keepalive if slash else self._one
        handler = methods.get(request.method)
        if handler is None:
            raise not_allowed(request.method, methods)
        return await handler(request, lease_id(name.encode("ascii", "replace")))

    async def grant(self, request: web.BaseRequest) -> Answer:
        """``{"ttl": "30s", "id": 7}``, the ``id`` only where it is to have that one."""
        timeout = self._timeout(request)
        body = await document(request, timeout, ("ttl", "id"))
        wanted = lease_id(body["id"], MAX_CHOSEN_ID) if body.get("id") is not None else 0
        command = encode_grant(ttl_ms(body.get("ttl")), wanted)
        result = await self._writes.propose(request.headers, command, timeout, feature="leases")
        revision = self._machine.store.revision
        granted = {"lease": result.lease, "ttl_ms": result.ttl_ms, "revision": revision}
        return answer(request, self._service, granted, revision, 201)

    async def keep_alive(self, request: web.BaseRequest, lease: int) -> Answer:
        """From now on it lives for its whole time again. Repeated, it does so again: no token is needed."""
        timeout = self._timeout(request)
        await document(request, timeout, ())
        without_token: CIMultiDict[str] = CIMultiDict()
        result = await self._writes.propose(
            without_token, encode_keep_alive(lease), timeout, feature="leases"
        )
        return self._answer(request, {"lease": lease, "ttl_ms": result.ttl_ms})

    async def revoke(self, request: web.BaseRequest, lease: int) -> Answer:
        """It ends now, and all keys that go with it are deleted, at one revision."""
        result = await self._writes.propose(
            request.headers, encode_revoke(lease), self._timeout(request), feature="leases"
        )
        return self._answer(request, {"deleted": result.deleted, "revision": result.revision})

    async def look(self, request: web.BaseRequest, lease: int) -> Answer:
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        freshness = await await_consistency(self._service, self._limits, params)
        known = self._machine.leases.get(lease)
        if known is None:
            raise NoSuchLease(f"there is no lease {lease}; it may have ended")
        fields = form_of(request.headers).fields
        keys = [fields("key", key) for key in self._machine.store.leased(lease)]
        return self._answer(request, {**self._shown(lease, known), "keys": keys}, freshness)

    async def list(self, request: web.BaseRequest) -> Answer:
        """All of them in the order of their ids, ``limit`` at a time, from the one after ``after`` on."""
        params = parse_query(request.rel_url.raw_query_string, ("limit", "after", *CONSISTENCY_PARAMS))
        limit = number_of(params, "limit", _MAX_PAGE, 1, _MAX_PAGE)
        after = number_of(params, "after", 0, 0, 10**18 - 1)
        freshness = await await_consistency(self._service, self._limits, params)
        known = self._machine.leases.rows()
        shown = heapq.nsmallest(limit + 1, (lease for lease in known if lease > after))
        more, shown = len(shown) > limit, shown[:limit]
        leases = [self._shown(lease, known[lease]) for lease in shown]
        return self._answer(request, {"leases": leases, "after": shown[-1] if more else None}, freshness)

    def _answer(
        self, request: web.BaseRequest, found: dict[str, Any], freshness: Freshness | None = None
    ) -> Answer:
        return answer(request, self._service, found, self._machine.store.revision, freshness=freshness)

    def _shown(self, lease: int, known: Lease) -> dict[str, Any]:
        """What is left of it: on the leader exact, elsewhere it may be less than what is said, never more."""
        now_ms, is_exact = self._service.cluster_time()
        remaining_ms = min(known.ttl_ms, max(0, known.expires_ms - now_ms))
        return {"lease": lease, "ttl_ms": known.ttl_ms, "remaining_ms": remaining_ms, "exact": is_exact}

    def _timeout(self, request: web.BaseRequest) -> float:
        params = parse_query(request.rel_url.raw_query_string, ("timeout",))
        return timeout_ms(params, self._limits.request_timeout_ms, self._limits.max_request_timeout_ms)
