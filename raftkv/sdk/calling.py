"""A request to the cluster: which node is asked, what is asked again, and what is raised in the end.

Rules:
- A read, and a write with an idempotency key, is asked again, of the next node, until there is an answer or
  the time is up: done twice it is done once. A write without a key is asked again only where it definitely
  did not happen.
- An answer that would be the same anywhere (400, 404, 409, 412 ...) is raised at once.
- Each node gets half of the time that is left, so that one that hangs leaves time for the others; and at
  first no more than seconds, where it may be asked again.
- When the time is up, what is raised says ``unknown`` if any node may have got the write.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from types import SimpleNamespace, TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from raftkv.errors import Outcome, RaftkvError
from raftkv.sdk.endpoints import Endpoints
from raftkv.sdk.errors import BadAnswer, Unreachable, read_error

IDEMPOTENCY_KEY = "Idempotency-Key"
JSON = {"Content-Type": "application/json"}

_LEAST_SHARE_S = 1.0  # less than that is not halved any more
_FIRST_SHARE_S = 2.0  # twice that in the second round, and so on
_MAX_GRACE_S = 0.5  # how much longer than a node may take its answer is waited for
_MAX_SERVER_TIMEOUT_MS = 60_000  # nodes refuse a longer ?timeout=
_PAUSES_S = (0.05, 0.1, 0.2, 0.4)  # after each round of all nodes; the last from then on
_LEARN_TIMEOUT_S = 2.0
_LARGE_BYTES = 1 << 20
_ELSEWHERE = frozenset({429, 502, 503, 504})  # another node, or the same one later, may do it
_CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)

Query = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """``path`` is percent-encoded already. ``repeatable``: done twice it is done once."""

    method: str
    path: str
    query: Query = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    repeatable: bool = True
    wait_s: float = 0.0  # that the node may take on purpose, beyond the timeout
    timed: bool = True  # it takes ?timeout=
    absent_ok: bool = False  # 404 is an answer like others


@dataclass(frozen=True, slots=True)
class Reply:
    endpoint: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Raises ``BadAnswer`` for what is no JSON object."""
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            # Who answered so did something, but not what a raftkv node does.
            raise BadAnswer(
                f"{self.endpoint} did not answer with a JSON object: is it a raftkv node?",
                outcome=Outcome.UNKNOWN,
            )
        return document


class _NotSent(Exception):
    pass


class _NoReply(Exception):
    pass


class Caller:
    """Belongs to the event loop that it is first used on. Close it."""

    def __init__(self, endpoints: Endpoints, timeout_s: float, *, learn: bool, idempotent: bool) -> None:
        if timeout_s <= 0:
            raise ValueError(f"the timeout must be above zero, got {timeout_s}")
        self.endpoints = endpoints
        self.timeout_s = timeout_s
        self._learns = learn
        self._idempotent = idempotent
        self._learning: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None  # a connection for each request
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._closed = True
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        for session in (self._session, self._single):
            if session is not None:
                await session.close()

    def write(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        key: str | None = None,
        wait_s: float = 0.0,
    ) -> Ask:
        """A write; with an idempotency key, ``key`` or a new one, unless this client does without."""
        token = key or (secrets.token_hex(16) if self._idempotent else None)
        named = {} if token is None else {IDEMPOTENCY_KEY: token}
        return Ask(method, path, query, {**named, **(headers or {})}, body, token is not None, wait_s)

    # -- one answer ----------------------------------------------------------------------------------------

    async def call(self, ask: Ask, timeout_s: float | None = None) -> Reply:
        """The first good answer (2xx, 304; 404 where that is one). Raises ``RaftkvError``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self.timeout_s if timeout_s is None else timeout_s) + ask.wait_s
        unknown: RaftkvError | None = None
        answered: RaftkvError | None = None  # says more than that the node asked last is dead
        tried = 0
        while True:
            endpoint = self.endpoints.current
            share_s = self._share_s(ask, deadline - loop.time(), tried)
            error = await self._try(ask, endpoint, share_s)
            if isinstance(error, Reply):
                self._learn()
                return error
            if error.outcome == Outcome.UNKNOWN and ask.method != "GET":
                unknown = error
            if error.status not in _ELSEWHERE and not isinstance(error, Unreachable):
                if unknown is not None and error.status == 507:  # of this attempt it is true
                    error.outcome = Outcome.UNKNOWN
                raise error
            if unknown is not None and not ask.repeatable:
                raise unknown
            if not isinstance(error, Unreachable):
                answered = error
            self.endpoints.failed(endpoint)
            tried += 1
            self.look_around()
            pause_s = _pause_s(error, tried, len(self.endpoints))
            if loop.time() + pause_s >= deadline:
                raise unknown or answered or error
            await asyncio.sleep(pause_s)

    def _share_s(self, ask: Ask, left_s: float, tried: int) -> float:
        """How long the next attempt may take, after so many."""
        if left_s <= _LEAST_SHARE_S or ask.wait_s:
            return left_s
        nodes = len(self.endpoints)
        if not ask.repeatable or nodes == 1:
            return left_s / 2
        return min(left_s / 2, _FIRST_SHARE_S * 2.0 ** (tried // nodes))

    async def _try(self, ask: Ask, endpoint: str, share_s: float) -> Reply | RaftkvError:
        what = "" if ask.method == "GET" else ". The write may have happened, or may still happen"
        try:
            reply = await self._exchange(ask, endpoint, share_s)
        except _NotSent as error:
            return Unreachable(f"{endpoint}: {error}")
        except _NoReply as error:
            return Unreachable(f"{endpoint}: {error}{what}", outcome=Outcome.UNKNOWN)
        if reply.status < 300 or reply.status == 304 or (reply.status == 404 and ask.absent_ok):
            return reply
        return read_error(reply.status, reply.headers.get("Content-Type", ""), reply.body, endpoint)

    async def _exchange(self, ask: Ask, endpoint: str, share_s: float) -> Reply:
        grace_s = min(_MAX_GRACE_S, share_s / 5)
        server_ms = min(max(1, round((share_s - ask.wait_s - grace_s) * 1000)), _MAX_SERVER_TIMEOUT_MS)
        timeout = aiohttp.ClientTimeout(total=share_s)
        timed: Query = (("timeout", f"{server_ms}ms"),) if ask.timed else ()
        url = _url(endpoint, ask.path, (*ask.query, *timed))
        try:
            async with self._session_for(ask).request(
                ask.method,
                url,
                headers=ask.headers,
                data=_body(ask.body),
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                return Reply(endpoint, answer.status, answer.headers, await answer.read())
        except _CONNECT_ERRORS as error:
            raise _NotSent(_reason(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _NoReply(_reason(error)) from error

    def _session_for(self, ask: Ask) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("this client is closed")
        if ask.repeatable:
            if self._session is None:
                self._session = _session(force_close=False)
            return self._session
        if self._single is None:
            self._single = _session(force_close=True)
        return self._single

    # -- an answer that goes on ----------------------------------------------------------------------------

    @asynccontextmanager
    async def stream(
        self, endpoint: str, ask: Ask, *, head_s: float, stall_s: float
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The head of a good answer of ``endpoint``, within ``head_s``; pieces of its body may take
        ``stall_s`` each.

        Raises ``RaftkvError``; ``Unreachable`` also out of the block, where reading fails.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=head_s, sock_read=stall_s)
        url = _url(endpoint, ask.path, ask.query)
        try:
            async with asyncio.timeout(head_s) as head:
                async with self._session_for(ask).request(
                    ask.method, url, headers=ask.headers, timeout=timeout, allow_redirects=False
                ) as answer:
                    if answer.status >= 300:
                        body = await answer.read()
                        raise read_error(
                            answer.status, answer.headers.get("Content-Type", ""), body, endpoint
                        )
                    head.reschedule(None)
                    yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{endpoint}: {_reason(error)}") from error

    # -- who else there is ---------------------------------------------------------------------------------

    def look_around(self) -> None:
        """A node has failed: learn who the members are."""
        self._learn(anew=True)

    def _learn(self, *, anew: bool = False) -> None:
        """Ask in the background who the members are: once, and again when one has failed."""
        due = self._learning is None or (anew and self._learning.done())
        if self._learns and due and not self._closed:
            self._learning = asyncio.create_task(self._ask_members())

    async def _ask_members(self) -> None:
        ask = Ask("GET", "/v1/cluster")
        for endpoint in self.endpoints.all:
            try:
                url, timeout = _url(endpoint, ask.path, ()), aiohttp.ClientTimeout(total=_LEARN_TIMEOUT_S)
                async with self._session_for(ask).get(url, timeout=timeout) as answer:
                    document = orjson.loads(await answer.read())
                members = [each["url"] for each in document["members"]]
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
                continue
            self.endpoints.learn(url.rstrip("/") for url in members if isinstance(url, str) and url)
            return


class Calls:
    """Calls of one kind. The parts of a client share a ``caller``."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def _post(
        self, path: str, document: Any, *, key: str | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """A write with a JSON body, and its answer."""
        ask = self._caller.write("POST", path, headers=JSON, body=orjson.dumps(document), key=key)
        return (await self._caller.call(ask, timeout)).json()

    async def _look(self, path: str, query: Query = (), timeout: float | None = None) -> dict[str, Any]:
        """A read with a JSON answer."""
        return (await self._caller.call(Ask("GET", path, query), timeout)).json()


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    """``force_close``: a new connection for each request, and never a second one.

    NB: aiohttp repeats a PUT or DELETE by itself where its connection breaks, and can't be told not to.
    """
    once = aiohttp.TraceConfig()
    once.on_connection_create_start.append(_refuse_second)
    connector = aiohttp.TCPConnector(limit=0, force_close=force_close)
    # A value's type is what the caller says, or none.
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        skip_auto_headers=("Content-Type", "Accept-Encoding"),
        trace_configs=[once] if force_close else None,
    )


async def _refuse_second(session: aiohttp.ClientSession, request: SimpleNamespace, params: Any) -> None:
    if hasattr(request, "has_begun"):
        raise _NoReply("the connection was closed without an answer")
    request.has_begun = True


def _url(endpoint: str, path: str, query: Query) -> URL:
    text = f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""
    return URL(f"{endpoint}{path}{text}", encoded=True)


def _body(body: bytes | None) -> bytes | BytesIO | None:
    """As aiohttp wants a large one, so that it is written piece by piece."""
    return body if body is None or len(body) <= _LARGE_BYTES else BytesIO(body)


def _pause_s(error: RaftkvError, tried: int, nodes: int) -> float:
    """None before every node was asked; then what the node said, if that is less."""
    rounds, rest = divmod(tried, nodes)
    if rest:
        return 0.0
    pause_s = _PAUSES_S[min(rounds, len(_PAUSES_S)) - 1]
    return pause_s if error.retry_after_ms is None else min(pause_s, error.retry_after_ms / 1000)


def _reason(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without an answer"
        case aiohttp.ClientConnectorError():
            return error.strerror or "can't connect"
        case aiohttp.ClientPayloadError():
            return "the connection was closed in the middle of the answer"
        case _:
            return " ".join(str(error).split()) or type(error).__name__
