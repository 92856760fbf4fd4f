"""The short way of plain requests: a GET or PUT of a key that asks for nothing else.

Most requests of a busy client are. They are taken from the parser's hands, wait in no task, and are answered
by the callback of what they wait for, with the answers that ``kv.py`` makes for all. What is the least
unusual (a query, a condition, a token, a body still on its way, anything that would be refused as it is)
isn't taken: it goes the long way, where every case is dealt with.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from time import perf_counter
from typing import Any

from aiohttp import HttpVersion11

from raftkv.api.answer import Answer
from raftkv.api.connection import Connection
from raftkv.api.consistency import LINEARIZABLE, Freshness
from raftkv.api.kv import KvHandlers, content_type_of
from raftkv.api.limits import Limits
from raftkv.api.params import timeout_ms
from raftkv.api.traffic import KEY_PATH, KEY_ROUTE, Traffic
from raftkv.api.writes import TOKEN_HEADER, Writes
from raftkv.errors import RaftkvError
from raftkv.kv.commands import encode_put
from raftkv.ports import Service

_TARGET = re.compile(KEY_PATH + r"([A-Za-z0-9._~!$&'()*+,;=:@/-]+)(?:\?consistency=(lease|stale))?")
_UNUSUAL = ("If-Match", "If-None-Match", "Expect", TOKEN_HEADER)  # headers that change what is done
_MAX_BODY_BYTES = 32 << 10  # below where aiohttp begins to hold the sender back
_BY_LEASE = Freshness("lease", None)


class Plain:
    """``connection.Taker`` for one node."""

    def __init__(
        self, service: Service, limits: Limits, *, kv: KvHandlers, writes: Writes, traffic: Traffic
    ) -> None:
        self.service = service
        self.kv = kv
        self.traffic = traffic
        self.timeout_ms = timeout_ms({}, limits.request_timeout_ms, limits.max_request_timeout_ms)
        self._writes = writes
        self._max_key_bytes = limits.max_key_bytes
        self._max_body_bytes = min(_MAX_BODY_BYTES, limits.max_value_bytes)

    def take(self, connection: Connection, message: Any, payload: Any) -> bool:
        target = _TARGET.fullmatch(message.path)
        if target is None or message.should_close or message.version != HttpVersion11:
            return False
        name, level = target.groups()
        headers = message.headers
        if len(name) > self._max_key_bytes or self.traffic.is_draining or not payload.is_eof():
            return False
        for header in _UNUSUAL:
            if header in headers:
                return False
        exchange: _Exchange | None = None
        if message.method == "GET":
            if headers.get("Accept", "*/*") == "*/*":
                exchange = self._get(connection, message, name.encode(), level)
        elif message.method == "PUT" and level is None:
            exchange = self._put(connection, message, name.encode(), payload)
        if exchange is None:
            return False
        self.traffic.begun += 1
        exchange.begin()
        return True

    def _get(self, connection: Connection, message: Any, key: bytes, level: str | None) -> _Exchange | None:
        if level == "stale":
            if self.service.staleness_ms() is None:
                return None
            return _StaleRead(self, connection, message, key)
        return _Read(self, connection, message, key, LINEARIZABLE if level is None else _BY_LEASE)

    def _put(self, connection: Connection, message: Any, key: bytes, payload: Any) -> _Write | None:
        headers = message.headers
        try:
            size = int(headers["Content-Length"])
            content_type = content_type_of(headers)
        except (KeyError, RaftkvError):
            return None
        if size > self._max_body_bytes or self._writes.exceeds_quota(len(key) + size):
            return None
        return _Write(self, connection, message, key, encode_put(key, payload.read_nowait(), content_type))


class _Exchange:
    """A plain request, until it is answered."""

    __slots__ = ("_began_s", "_connection", "_key", "_message", "_plain")

    def __init__(self, plain: Plain, connection: Connection, message: Any, key: bytes) -> None:
        self._plain = plain
        self._connection = connection
        self._message = message
        self._key = key
        self._began_s = perf_counter()

    def ask(self) -> Awaitable[Any]:
        """What its answer waits for."""
        raise NotImplementedError

    def made(self, result: Any) -> Answer:
        """Its answer, of what it waited for. Raises the error that is to be told."""
        raise NotImplementedError

    def begin(self) -> None:
        try:
            asyncio.ensure_future(self.ask()).add_done_callback(self._done)
        except Exception as error:
            self._send(self._failed(error))

    def _done(self, ticket: asyncio.Future[Any] | None) -> None:
        try:
            answer = self.made(None if ticket is None else ticket.result())
        except Exception as error:
            answer = self._failed(error)
        self._send(answer)

    def _failed(self, error: Exception) -> Answer:
        return self._plain.traffic.failed(error, self._message.method, self._message.path)

    def _send(self, answer: Answer) -> None:
        traffic, message = self._plain.traffic, self._message
        traffic.ended += 1
        if traffic.is_draining:
            answer.force_close()
        self._connection.answer(answer)
        traffic.timed(message.method, KEY_ROUTE, self._began_s)
        traffic.log(message.method, message.path, answer.status)


class _Read(_Exchange):
    __slots__ = ("_freshness",)

    def __init__(
        self, plain: Plain, connection: Connection, message: Any, key: bytes, freshness: Freshness
    ) -> None:
        super().__init__(plain, connection, message, key)
        self._freshness = freshness

    def ask(self) -> Awaitable[None]:
        plain = self._plain
        if self._freshness is LINEARIZABLE:
            return plain.service.barrier(plain.timeout_ms)
        return plain.service.barrier(plain.timeout_ms, by_lease=True)

    def made(self, result: Any) -> Answer:
        return self._plain.kv.read(self._key, self._freshness)


class _StaleRead(_Exchange):
    """Waits for nothing but the others of this pass of the event loop: to read requests and write answers by
    turns takes a third longer than one after the other (docs/performance.md).
    """

    __slots__ = ()

    def begin(self) -> None:
        asyncio.get_running_loop().call_soon(self._done, None)

    def made(self, result: Any) -> Answer:
        plain = self._plain
        return plain.kv.read(self._key, Freshness("stale", plain.service.staleness_ms()))


class _Write(_Exchange):
    __slots__ = ("_command",)

    def __init__(
        self, plain: Plain, connection: Connection, message: Any, key: bytes, command: bytes
    ) -> None:
        super().__init__(plain, connection, message, key)
        self._command = command

    def ask(self) -> Awaitable[Any]:
        return self._plain.service.propose(self._command, self._plain.timeout_ms)

    def made(self, result: Any) -> Answer:
        return self._plain.kv.written(self._key, result)
