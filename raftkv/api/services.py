"""``/v1/services/{name}``: instances that are listed while their lease lives."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
from aiohttp import web

from raftkv.api.body import json_response
from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency
from raftkv.api.fields import document, idempotency_key, lease_or_ttl, name_of
from raftkv.api.kv import text_or_base64
from raftkv.api.leases import rejection
from raftkv.api.limits import Limits
from raftkv.api.params import parse_query, timeout_ms
from raftkv.errors import BadRequest, MethodNotAllowed, TooLarge
from raftkv.kv.commands import encode_delete, encode_once, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import SERVICE, Place, Queue, names, places
from raftkv.kv.results import DeleteResult, PutResult, Rejected
from raftkv.ports import Service

PATH = "/v1/services"
_FIELDS = ("id", "address", "meta", "ttl", "lease")


class ServicesHandlers:
    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._service = service
        self._machine = machine
        self._limits = limits

    async def list(self, request: web.BaseRequest) -> web.Response:
        """The names that have an instance."""
        await self._await_consistency(request)
        store = self._machine.store
        found = [text_or_base64("name", name) for name in names(store, SERVICE)]
        return json_response({"services": found, "revision": store.revision})

    async def one(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        """``rest``: what follows on ``/v1/services/``, percent-encoded."""
        raw_name, slash, raw_id = rest.partition("/")
        queue = Queue(SERVICE, name_of(raw_name, "service's name", self._limits.max_key_bytes))
        methods = {"DELETE"} if slash else {"GET", "HEAD", "POST"}
        if request.method not in methods:
            allowed = ", ".join(sorted(methods))
            raise MethodNotAllowed(
                f"{request.method} isn't possible here; use {allowed}", extra={"allow": allowed}
            )
        if slash:
            return await self.deregister(request, queue, raw_id)
        if request.method == "POST":
            return await self.register(request, queue)
        return await self.instances(request, queue)

    async def register(self, request: web.BaseRequest, queue: Queue) -> web.Response:
        """``{"id", "address", "ttl": "10s"}``, and ``meta``, any JSON, for others to see. With a ``lease``
        instead of ``ttl`` it goes with that one. An instance of that id is replaced.
        """
        timeout = self._timeout(request)
        body = await document(request, timeout, _FIELDS)
        lease, ttl_ms = lease_or_ttl(body)
        instance, address = body.get("id"), body.get("address")
        if not isinstance(instance, str) or not isinstance(address, str) or not address:
            raise BadRequest("a service's instance has an id and an address, both text")
        key = queue.key(_instance_id(instance.encode(), self._limits.max_key_bytes))
        value = orjson.dumps({"address": address, "meta": body.get("meta")})
        command = encode_put(key, value, lease=lease, ttl_ms=ttl_ms)
        result = await self._write(request, command, timeout)
        assert isinstance(result, PutResult)
        return json_response(
            {
                **text_or_base64("name", queue.name),
                "id": instance,
                "lease": result.lease,
                "revision": result.revision,
            },
            status=201,
        )

    async def instances(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        await self._await_consistency(request)
        store = self._machine.store
        found = [instance_fields(queue, place) for place in places(store, queue)]
        return json_response(
            {**text_or_base64("name", queue.name), "instances": found, "revision": store.revision}
        )

    async def deregister(self, request: web.BaseRequest, queue: Queue, raw_id: str) -> web.Response:
        key = queue.key(name_of(raw_id, "instance's id", self._limits.max_key_bytes))
        result = await self._write(request, encode_delete(key), self._timeout(request))
        assert isinstance(result, DeleteResult)
        return json_response({"deleted": result.deleted, "revision": result.revision})

    async def _write(self, request: web.BaseRequest, command: bytes, within_ms: float) -> Any:
        token = idempotency_key(request)
        if token is not None:
            command = encode_once(token, sha256(command).digest()[:16], command)
        await self._service.require("leases", within_ms)
        result = await self._service.propose(command, within_ms)
        if isinstance(result, Rejected):
            raise rejection(result)
        return result

    async def _await_consistency(self, request: web.BaseRequest) -> None:
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        await await_consistency(self._service, self._limits, params)

    def _timeout(self, request: web.BaseRequest) -> float:
        params = parse_query(request.rel_url.raw_query_string, ("timeout",))
        return timeout_ms(params, self._limits.request_timeout_ms, self._limits.max_request_timeout_ms)


def instance_fields(queue: Queue, place: Place) -> dict[str, Any]:
    known = orjson.loads(place.value)
    return {
        **text_or_base64("id", place.key[len(queue.prefix) :]),
        "address": known["address"],
        "meta": known["meta"],
        "lease": place.lease,
        "create_revision": place.token,
    }


def _instance_id(instance: bytes, max_bytes: int) -> bytes:
    if not instance or b"\x00" in instance:
        raise BadRequest("an instance's id must not be empty, nor hold a NUL")
    if len(instance) > max_bytes:
        raise TooLarge(f"the instance's id has {len(instance)} bytes; at most {max_bytes} are allowed")
    return instance
