"""``/v1/elections/{name}``: campaign, proclaim, resign, see who leads. A lock whose holder has something to
say.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency
from raftkv.api.fields import document, lease_id, value_of
from raftkv.api.form import form_of
from raftkv.api.limits import Limits
from raftkv.api.locks import Handler, QueueHandlers, holder_fields
from raftkv.api.params import parse_query
from raftkv.api.streams import States, Streams
from raftkv.api.writes import Writes, token_of
from raftkv.errors import BadRequest
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import ELECTION, Queue, places
from raftkv.ports import Service

PATH = "/v1/elections"


class ElectionsHandlers(QueueHandlers):
    kind, what, holder = ELECTION, "election", "leader"

    def __init__(
        self, service: Service, machine: KvMachine, limits: Limits, *, writes: Writes, streams: Streams
    ) -> None:
        super().__init__(service, machine, limits, writes)
        self._streams = streams
        self._methods["PUT"] = self.proclaim
        self._observation: dict[str, Handler] = {"GET": self.observe, "HEAD": self.observe}
        self.routes["/{name}/observe"] = self._observation

    async def one(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        if not rest.endswith("/observe"):
            return await super().one(request, rest)
        queue = self._queue(rest.removesuffix("/observe"))
        return await self._call(self._observation, request, queue)

    async def observe(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """An event with who leads, now and each time that another does, or says something else."""
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        freshness = await await_consistency(self._service, self._limits, params)
        fields = form_of(request.headers).fields

        def leader() -> dict[str, Any]:
            first = places(self._machine.store, queue)[:1]
            return {
                **fields("name", queue.name),
                "leader": holder_fields(first[0], fields) if first else None,
            }

        return await self._streams.answer(
            request,
            freshness,
            lambda hub, wake: hub.watch_prefix(queue.prefix, queue.end, None, wake),
            lambda watcher: States(watcher, "leader", leader),
        )

    async def proclaim(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """``{"value": ...}`` of who leads with ``?lease=``."""
        params, timeout = self._params(request, "lease")
        if "lease" not in params:
            raise BadRequest("give ?lease=, which it leads with")
        value = value_of(await document(request, timeout, ("value", "value_base64")))
        lease, once = lease_id(params["lease"]), token_of(request.headers)
        await self._check_quota(queue, value, timeout, once)
        place = await self._service.queues.proclaim(queue, lease, value, timeout_ms=timeout, once=once)
        return self._granted(request, queue, place)
