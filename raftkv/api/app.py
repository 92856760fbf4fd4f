"""The REST server: which handler answers which path, and every error as a problem document.

aiohttp's low-level ``web.Server`` with a small table instead of its ``Application``: a fifth less per
request, and errors of every origin (also aiohttp's own, of requests it can't parse) take one form. See
docs/decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from raftkv.api import elections, leases, locks, members, redirect, services
from raftkv.api.answer import Answer
from raftkv.api.cluster import ClusterHandlers
from raftkv.api.connection import Connection
from raftkv.api.kv import KvHandlers
from raftkv.api.limits import Limits
from raftkv.api.metrics import MetricsHandlers
from raftkv.api.pages import PageHandlers
from raftkv.api.params import parse_query
from raftkv.api.plain import Plain
from raftkv.api.poll import Polls
from raftkv.api.snapshot import SnapshotHandlers
from raftkv.api.streams import Streams
from raftkv.api.taking import TakingHandlers
from raftkv.api.traffic import KEY_PATH, KEY_ROUTE, Traffic
from raftkv.api.txn import TxnHandlers
from raftkv.api.watch import WatchHandlers
from raftkv.api.writes import Writes
from raftkv.errors import BadRequest, MethodNotAllowed, NotFound, RaftkvError
from raftkv.kv.machine import KvMachine
from raftkv.ports import Service

logger = structlog.get_logger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
KeyHandler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]


class Below(Protocol):
    """What answers all paths that begin with one."""

    @property
    def routes(self) -> Mapping[str, Mapping[str, object]]:
        """By what follows on that beginning, as ``/{name}/observe``: the methods there."""
        ...

    def one(self, request: web.BaseRequest, rest: str) -> Awaitable[web.StreamResponse]:
        """``rest``: what follows on that beginning and a slash, percent-encoded."""
        ...


_BEGINNINGS = (
    "/v1/kv",
    "/v1/txn",
    "/v1/batch",
    "/v1/watch",
    "/v1/leases",
    "/v1/locks",
    "/v1/elections",
    "/v1/services",
    "/v1/status",
    "/v1/cluster",
    "/v1/snapshot",
)
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
_LINGER_S = 2.0  # for a body that nobody wants: closed at once, its client would see a reset, and no answer
_QUIET_S = 0.25  # an idle client asks by then, or its connection may be closed
_LOOK_S = 0.01


class Routes:
    """Finds the handler of a request and turns what it raises into a response."""

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._service = service
        writes, streams = Writes(service, machine, limits), Streams(service, limits)
        polls = Polls(service, machine, limits, streams)
        kv = KvHandlers(service, machine, limits, writes=writes, polls=polls)
        self.traffic = Traffic(service.tallies)
        self.plain = Plain(service, limits, kv=kv, writes=writes, traffic=self.traffic)
        pages = PageHandlers(service, machine, limits, writes)
        txn, cluster = TxnHandlers(service, limits, writes), ClusterHandlers(service, limits)
        members_handlers = members.MembersHandlers(service, limits)
        self._keys: dict[str, KeyHandler] = {
            "GET": kv.get,
            "HEAD": kv.get,
            "PUT": kv.put,
            "DELETE": kv.delete,
        }
        snapshot = SnapshotHandlers(service, limits)
        leasing = leases.LeasesHandlers(service, machine, limits, writes)
        electing = elections.ElectionsHandlers(service, machine, limits, writes=writes, streams=streams)
        listing = services.ServicesHandlers(service, machine, limits, writes=writes, streams=streams)
        self._below: dict[str, Below] = {  # "/v1/locks" -> what answers "/v1/locks/..."
            members.PATH: members_handlers,
            leases.PATH: leasing,
            locks.PATH: locks.LocksHandlers(service, machine, limits, writes),
            elections.PATH: electing,
            services.PATH: listing,
        }
        self._paths: dict[str, dict[str, Handler]] = {
            "/v1/kv": {"GET": pages.list, "DELETE": pages.delete},
            "/v1/txn": {"POST": txn.txn},
            "/v1/batch": {"POST": txn.batch},
            "/v1/compact": {"POST": txn.compact},
            "/v1/status": {"GET": cluster.status},
            "/v1/cluster": {"GET": cluster.cluster},
            "/v1/cluster/leader": {"POST": cluster.transfer},
            members.PATH: {"GET": members_handlers.list, "POST": members_handlers.add},
            "/v1/snapshot": {"GET": snapshot.download, "POST": TakingHandlers(service, limits).take},
            leases.PATH: {"GET": leasing.list, "POST": leasing.grant},
            services.PATH: {"GET": listing.list},
            "/v1/watch": {"GET": WatchHandlers(service, machine, limits, streams).watch},
            "/metrics": {"GET": MetricsHandlers(service, machine).metrics},
            "/livez": {"GET": cluster.livez},
            "/readyz": {"GET": cluster.readyz},
            "/openapi.json": {"GET": self._describe},
        }
        for methods in self._paths.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]

    @property
    def table(self) -> dict[str, frozenset[str]]:
        """The methods of each path, with what varies in it in braces."""
        table = {path: frozenset(methods) for path, methods in self._paths.items()}
        table[KEY_ROUTE] = frozenset(self._keys)
        for beginning, below in self._below.items():
            table |= {f"{beginning}{rest}": frozenset(methods) for rest, methods in below.routes.items()}
        return table

    async def _describe(self, request: web.BaseRequest) -> Answer:
        """The OpenAPI document of ``table``."""
        from raftkv.api.openapi import encoded_document  # noqa: PLC0415 - few ever ask for it

        parse_query(request.rel_url.raw_query_string, ())
        routes = tuple((path, tuple(sorted(methods))) for path, methods in sorted(self.table.items()))
        return Answer({"Content-Type": "application/json"}, encoded_document(routes))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        traffic = self.traffic
        traffic.begun += 1
        began_s, path = perf_counter(), request.rel_url.raw_path
        try:
            response = await self._respond(request)
        finally:
            traffic.ended += 1
        if traffic.is_draining:
            response.force_close()
        if isinstance(response, Answer):
            method = request.method if request.method in _METHODS else "other"
            traffic.timed(method, self._route_of(path), began_s)
        traffic.log(request.method, path, response.status)
        return response

    def _route_of(self, path: str) -> str:
        """What a request for ``path`` is counted as: one of a few."""
        if path.startswith(KEY_PATH):
            return KEY_ROUTE
        if path in self._paths:
            return path
        for beginning in self._below:
            if path.startswith(f"{beginning}/"):
                return f"{beginning}/..."
        return "other"

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            path = request.rel_url.raw_path
            if request.rel_url.raw_fragment:
                # Cut off, it would make another key of this one.
                raise BadRequest("a request has no #fragment; write a literal # as %23")
            if redirect.PARAM in request.rel_url.raw_query_string and path.startswith("/v1/"):
                told = redirect.redirected(request, self._service)
                if isinstance(told, Answer):
                    return _last_if_more_may_come(request, told)
                request = told
            if path.startswith(KEY_PATH):
                by_key = self._keys.get(request.method)
                if by_key is None:
                    raise _method_not_allowed(request.method, self._keys)
                return await by_key(request, path[len(KEY_PATH) :])
            methods = self._paths.get(path)
            if methods is None:
                for beginning, below in self._below.items():
                    if path.startswith(f"{beginning}/"):
                        return await below.one(request, path[len(beginning) + 1 :])
                raise NotFound(f"there is nothing at {path}; the API has {', '.join(_BEGINNINGS)}")
            handler = methods.get(request.method)
            if handler is None:
                raise _method_not_allowed(request.method, methods)
            return await handler(request)
        except RaftkvError as error:
            answer = self.traffic.failed(error, request.method, request.path)
            return _last_if_more_may_come(request, answer)
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client is gone
        except Exception as error:
            return self.traffic.failed(error, request.method, request.path)


def _last_if_more_may_come(request: web.BaseRequest, response: Answer) -> Answer:
    if "Expect" in request.headers:
        # Told this, the client may send the body or not: what comes next can't be told apart.
        response.force_close()
    return response


def _method_not_allowed(method: str, allowed: dict[str, Any]) -> MethodNotAllowed:
    names = ", ".join(sorted(allowed))
    return MethodNotAllowed(f"{method} isn't possible here; use {names}", extra={"allow": names})


class RestServer(web.Server):
    """To be run by ``aiohttp.web.ServerRunner``."""

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._limits = limits
        self._settings: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,  # a value is kept as it came
            "lingering_time": _LINGER_S,
        }
        self._hub = service.hub
        self._routes = Routes(service, machine, limits)
        super().__init__(self._routes.handle, request_factory=self._make_request)

    def __call__(self) -> Connection:
        return Connection(self, self._loop, self._routes.plain, **self._settings)

    async def drain(self, within_s: float) -> None:
        """Answer what is asked, each answer with ``Connection: close``, until no connection is left, or those
        left have been quiet for a while: closed while it is asked on, one would lose that request.
        """
        traffic, loop = self._routes.traffic, asyncio.get_running_loop()
        traffic.is_draining = True
        self._hub.close()  # those who watch go on elsewhere
        seen, quiet_since = -1, loop.time()
        deadline = loop.time() + within_s
        while self.connections and loop.time() < deadline:
            if traffic.begun != traffic.ended or traffic.begun != seen:
                seen, quiet_since = traffic.begun, loop.time()
            elif loop.time() - quiet_since >= _QUIET_S:
                return
            await asyncio.sleep(_LOOK_S)

    def _make_request(
        self,
        message: Any,
        payload: Any,
        protocol: Any,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        limit = self._limits.max_request_bytes
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=limit)
