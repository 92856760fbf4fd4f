"""``/v1/services/{name}``: instances that are listed while their lease lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency
from raftkv.api.fields import answer, checked_name, document, lease_or_ttl, name_of, not_allowed
from raftkv.api.form import form_of
from raftkv.api.limits import Limits
from raftkv.api.params import flag_of, parse_query, timeout_ms
from raftkv.api.streams import States, Streams
from raftkv.api.writes import Writes
from raftkv.errors import BadRequest
from raftkv.kv.commands import encode_delete, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import SERVICE, Place, Queue, names, places
from raftkv.ports import Service

PATH = "/v1/services"
_FIELDS = ("id", "address", "meta", "ttl", "lease")

ServiceHandler = Callable[[web.BaseRequest, Queue], Awaitable[web.StreamResponse]]
InstanceHandler = Callable[[web.BaseRequest, Queue, str], Awaitable[web.StreamResponse]]


class ServicesHandlers:
    def __init__(
        self, service: Service, machine: KvMachine, limits: Limits, *, writes: Writes, streams: Streams
    ) -> None:
        self._service = service
        self._writes = writes
        self._streams = streams
        self._machine = machine
        self._limits = limits
        self._service_methods: dict[str, ServiceHandler] = {
            "GET": self.instances,
            "HEAD": self.instances,
            "POST": self.register,
        }
        self._instance_methods: dict[str, InstanceHandler] = {"DELETE": self.deregister}
        self.routes: dict[str, Mapping[str, object]] = {
            "/{name}": self._service_methods,
            "/{name}/{id}": self._instance_methods,
        }

    async def list(self, request: web.BaseRequest) -> Answer:
        """The names that have an instance."""
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        freshness = await await_consistency(self._service, self._limits, params)
        store = self._machine.store
        fields = form_of(request.headers).fields
        found = [fields("name", name) for name in names(store, SERVICE)]
        listed = {"services": found, "revision": store.revision}
        return answer(request, self._service, listed, store.revision, freshness=freshness)

    async def one(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        """``rest``: what follows on ``/v1/services/``, percent-encoded."""
        raw_name, slash, raw_id = rest.partition("/")
        queue = Queue(SERVICE, name_of(raw_name, "service's name", self._limits.max_key_bytes))
        methods = self._instance_methods if slash else self._service_methods
        if request.method not in methods:
            raise not_allowed(request.method, methods)
        if slash:
            return await self._instance_methods[request.method](request, queue, raw_id)
        return await self._service_methods[request.method](request, queue)

    async def register(self, request: web.BaseRequest, queue: Queue) -> Answer:
        """``{"id", "address", "ttl": "10s"}``, and ``meta``, any JSON, for others to see. With a ``lease``
        instead of ``ttl`` it goes with that one. An instance of that id is replaced.
        """
        timeout = self._timeout(request)
        body = await document(request, timeout, _FIELDS)
        lease, ttl_ms = lease_or_ttl(body)
        instance, address = body.get("id"), body.get("address")
        if not isinstance(instance, str) or not isinstance(address, str) or not address:
            raise BadRequest("a service's instance has an id and an address, both text")
        key = queue.key(checked_name(instance.encode(), "instance's id", self._limits.max_key_bytes))
        try:
            value = orjson.dumps({"address": address, "meta": body.get("meta")})
        except orjson.JSONEncodeError as error:  # msgpack can say more
            raise BadRequest(f"meta can't be told as JSON: {error}") from None
        command = encode_put(key, value, lease=lease, ttl_ms=ttl_ms)
        result = await self._writes.propose(
            request.headers, command, timeout, feature="leases", adds_bytes=len(key) + len(value)
        )
        found = {
            **form_of(request.headers).fields("name", queue.name),
            "id": instance,
            "lease": result.lease,
            "revision": result.revision,
        }
        return answer(request, self._service, found, result.revision, 201)

    async def instances(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """Those that live; with ``?watch=true`` an event with them, now and each time that they change."""
        params = parse_query(request.rel_url.raw_query_string, ("watch", *CONSISTENCY_PARAMS))
        watches = flag_of(params, "watch")
        freshness = await await_consistency(self._service, self._limits, params)
        store = self._machine.store
        fields = form_of(request.headers).fields

        def listed() -> dict[str, Any]:
            found = [instance_fields(queue, place) for place in places(store, queue)]
            return {**fields("name", queue.name), "instances": found}

        if watches:
            return await self._streams.answer(
                request,
                freshness,
                lambda hub, wake: hub.watch_prefix(queue.prefix, queue.end, None, wake),
                lambda watcher: States(watcher, "instances", listed),
            )
        found = {**listed(), "revision": store.revision}
        return answer(request, self._service, found, store.revision, freshness=freshness)

    async def deregister(self, request: web.BaseRequest, queue: Queue, raw_id: str) -> Answer:
        key = queue.key(name_of(raw_id, "instance's id", self._limits.max_key_bytes))
        result = await self._writes.propose(
            request.headers, encode_delete(key), self._timeout(request), feature="leases"
        )
        found = {"deleted": result.deleted, "revision": result.revision}
        return answer(request, self._service, found, result.revision)

    def _timeout(self, request: web.BaseRequest) -> float:
        params = parse_query(request.rel_url.raw_query_string, ("timeout",))
        return timeout_ms(params, self._limits.request_timeout_ms, self._limits.max_request_timeout_ms)


def instance_fields(queue: Queue, place: Place) -> dict[str, Any]:
    known = orjson.loads(place.value)
    return {
        "id": place.key[len(queue.prefix) :].decode(),
        "address": known["address"],
        "meta": known["meta"],
        "lease": place.lease,
        "create_revision": place.token,
    }
