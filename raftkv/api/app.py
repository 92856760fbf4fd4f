"""The REST server: which handler answers which path, and every error as a problem document.

aiohttp's low-level ``web.Server`` with a small table instead of its ``Application``: a fifth less per
request, and errors of every origin (also aiohttp's own, of requests it can't parse) take one form. See
docs/decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import perf_counter
from typing import Any

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong

from raftkv.api import elections, leases, locks, members, redirect, services
from raftkv.api.answer import Answer
from raftkv.api.cluster import ClusterHandlers
from raftkv.api.kv import KvHandlers
from raftkv.api.limits import Limits
from raftkv.api.metrics import MetricsHandlers
from raftkv.api.pages import PageHandlers
from raftkv.api.poll import Polls
from raftkv.api.problem import problem
from raftkv.api.snapshot import SnapshotHandlers
from raftkv.api.streams import Streams
from raftkv.api.taking import TakingHandlers
from raftkv.api.txn import TxnHandlers
from raftkv.api.watch import WatchHandlers
from raftkv.api.writes import Writes
from raftkv.errors import BadRequest, MethodNotAllowed, NotFound, Outcome, RaftkvError, UriTooLong
from raftkv.kv.machine import KvMachine
from raftkv.ports import Service

logger = structlog.get_logger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
KeyHandler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]

_KEY_PATH = "/v1/kv/"
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
_MAX_HEADER_BYTES = 16_384
_MAX_LINE_BYTES = 32_768  # a key of 4 KiB may take 12 KiB percent-encoded


class Routes:
    """Finds the handler of a request and turns what it raises into a response."""

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._service = service
        writes, streams = Writes(service, machine, limits), Streams(service, limits)
        polls = Polls(service, machine, limits, streams)
        kv = KvHandlers(service, machine, limits, writes=writes, polls=polls)
        pages = PageHandlers(service, machine, limits, writes)
        txn, cluster = TxnHandlers(service, limits, writes), ClusterHandlers(service, limits)
        self._members = members.MembersHandlers(service, limits)
        self._keys: dict[str, KeyHandler] = {
            "GET": kv.get,
            "HEAD": kv.get,
            "PUT": kv.put,
            "DELETE": kv.delete,
        }
        snapshot = SnapshotHandlers(service, limits)
        leasing = leases.LeasesHandlers(service, machine, limits, writes)
        listing = services.ServicesHandlers(service, machine, limits, writes=writes, streams=streams)
        self._below: dict[str, KeyHandler] = {  # "/v1/locks" -> what answers "/v1/locks/..."
            members.PATH: self._members.one,
            leases.PATH: leasing.one,
            locks.PATH: locks.LocksHandlers(service, machine, limits).one,
            elections.PATH: elections.ElectionsHandlers(service, machine, limits, streams).one,
            services.PATH: listing.one,
        }
        self._paths: dict[str, dict[str, Handler]] = {
            "/v1/kv": {"GET": pages.list, "DELETE": pages.delete},
            "/v1/txn": {"POST": txn.txn},
            "/v1/batch": {"POST": txn.batch},
            "/v1/compact": {"POST": txn.compact},
            "/v1/status": {"GET": cluster.status},
            "/v1/cluster": {"GET": cluster.cluster},
            "/v1/cluster/leader": {"POST": cluster.transfer},
            members.PATH: {"GET": self._members.list, "POST": self._members.add},
            "/v1/snapshot": {"GET": snapshot.download, "POST": TakingHandlers(service, limits).take},
            leases.PATH: {"GET": leasing.list, "POST": leasing.grant},
            services.PATH: {"GET": listing.list},
            "/v1/watch": {"GET": WatchHandlers(service, machine, limits, streams).watch},
            "/metrics": {"GET": MetricsHandlers(service, machine).metrics},
            "/livez": {"GET": cluster.livez},
            "/readyz": {"GET": cluster.readyz},
        }
        for methods in self._paths.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]
        self._tallies = service.tallies
        self._log = logger.bind()  # a proxy would be asked for each request
        self.is_draining = False  # each answer is the last on its connection
        self.begun = 0  # requests
        self.ended = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.begun += 1
        began_s, path = perf_counter(), request.rel_url.raw_path
        try:
            response = await self._respond(request)
        finally:
            self.ended += 1
        if self.is_draining:
            response.force_close()
        if isinstance(response, Answer):
            method = request.method if request.method in _METHODS else "other"
            self._tallies.requests[method, self._route_of(path)].observe(perf_counter() - began_s)
        self._log.debug("request", method=request.method, path=path, status=response.status)
        return response

    def _route_of(self, path: str) -> str:
        """What a request for ``path`` is counted as: one of a few."""
        if path.startswith(_KEY_PATH):
            return "/v1/kv/{key}"
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
            if path.startswith(_KEY_PATH):
                by_key = self._keys.get(request.method)
                if by_key is None:
                    raise _method_not_allowed(request.method, self._keys)
                return await by_key(request, path[len(_KEY_PATH) :])
            methods = self._paths.get(path)
            if methods is None:
                for beginning, below in self._below.items():
                    if path.startswith(f"{beginning}/"):
                        return await below(request, path[len(beginning) + 1 :])
                raise NotFound(f"there is nothing at {path}; the API has {', '.join(_BEGINNINGS)}")
            handler = methods.get(request.method)
            if handler is None:
                raise _method_not_allowed(request.method, methods)
            return await handler(request)
        except RaftkvError as error:
            self._tallies.errors[error.code] += 1
            return _last_if_more_may_come(request, problem(error))
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client is gone
        except Exception:
            logger.exception("a request failed", method=request.method, path=request.path)
            detail = "the server made a mistake; its log has the details"
            return problem(RaftkvError(detail, outcome=Outcome.UNKNOWN))


def _last_if_more_may_come(request: web.BaseRequest, response: Answer) -> Answer:
    if "Expect" in request.headers:
        # Told this, the client may send the body or not: what comes next can't be told apart.
        response.force_close()
    return response


def _method_not_allowed(method: str, allowed: dict[str, Any]) -> MethodNotAllowed:
    names = ", ".join(sorted(allowed))
    return MethodNotAllowed(f"{method} isn't possible here; use {names}", extra={"allow": names})


class _Connection(web.RequestHandler):
    """A client's connection, whose unreadable requests are answered in our form, too. When it is lost, what
    works for that client alone is cancelled (``gone.while_connected``).
    """

    __slots__ = ("when_lost",)

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(manager, loop=loop, **settings)
        self.when_lost: set[asyncio.Task[Any]] = set()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        for task in self.when_lost:
            task.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        response = problem(self._error(status, exc, message))
        # NB: not the connection's own force_close, which would drop the answer: it closes once that is sent.
        response.force_close()
        return response

    def _error(self, status: int, exc: BaseException | None, message: str | None) -> RaftkvError:
        if isinstance(exc, ConnectionError):  # the client is gone: nobody reads this
            return RaftkvError("the connection broke", outcome=Outcome.UNKNOWN)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("a connection failed", error=repr(exc))
            return RaftkvError("the server made a mistake", outcome=Outcome.UNKNOWN)
        reason = " ".join((message or str(exc) or "unreadable").split())[:200]
        if isinstance(exc, LineTooLong) and exc.args[1] == _MAX_LINE_BYTES:
            return UriTooLong(f"the path and query are too long: at most {_MAX_LINE_BYTES} bytes")
        if isinstance(exc, LineTooLong):
            return BadRequest(f"a header is too long: at most {_MAX_HEADER_BYTES} bytes")
        return BadRequest(f"this is no readable HTTP request: {reason}")


class RestServer(web.Server):
    """To be run by ``aiohttp.web.ServerRunner``."""

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        self._limits = limits
        self._settings: dict[str, Any] = {
            "access_log": None,
            "max_line_size": _MAX_LINE_BYTES,
            "max_field_size": _MAX_HEADER_BYTES,
            "auto_decompress": False,  # a value is kept as it came
            "keepalive_timeout": 75.0,
            "lingering_time": _LINGER_S,
        }
        self._hub = service.hub
        self._routes = Routes(service, machine, limits)
        super().__init__(self._routes.handle, request_factory=self._make_request)

    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._settings)

    async def drain(self, within_s: float) -> None:
        """Answer what is asked, each answer with ``Connection: close``, until no connection is left, or those
        left have been quiet for a while: closed while it is asked on, one would lose that request.
        """
        routes, loop = self._routes, asyncio.get_running_loop()
        routes.is_draining = True
        self._hub.close()  # those who watch go on elsewhere
        seen, quiet_since = -1, loop.time()
        deadline = loop.time() + within_s
        while self.connections and loop.time() < deadline:
            if routes.begun != routes.ended or routes.begun != seen:
                seen, quiet_since = routes.begun, loop.time()
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
