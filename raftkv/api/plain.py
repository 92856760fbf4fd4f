"""The short way of plain requests: a GET or PUT of a key that asks for nothing else.

Most requests of a busy client are. They are taken from the parser's hands, wait in no task, and are answered
by the callback of what they wait for, with the answers that ``kv.py`` makes for all. What is the least
unusual (a query, a condition, a token, a body still on its way, anything that would be refused as it is)
isn't taken: it goes the long way, where every case is dealt with.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from aiohttp import HttpVersion11
from multidict import MultiMapping

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


class Plain:
    """``connection.Taker`` for one node."""

    def __init__(
        self, service: Service, limits: Limits, *, kv: KvHandlers, writes: Writes, traffic: Traffic
    ) -> None:
        self._service = service
        self._kv = kv
        self._writes = writes
        self._traffic = traffic
        self._max_key_bytes = limits.max_key_bytes
        self._max_body_bytes = min(_MAX_BODY_BYTES, limits.max_value_bytes)
        self._timeout_ms = timeout_ms({}, limits.request_timeout_ms, limits.max_request_timeout_ms)

    def take(self, connection: Connection, message: Any, payload: Any) -> bool:
        target = _TARGET.fullmatch(message.path)
        if target is None or message.should_close or message.version != HttpVersion11:
            return False
        name, level = target.groups()
        headers = message.headers
        if len(name) > self._max_key_bytes or self._traffic.is_draining or not payload.is_eof():
            return False
        for header in _UNUSUAL:
            if header in headers:
                return False
        exchange = _Exchange(self._traffic, connection, message)
        if message.method == "GET":
            return headers.get("Accept", "*/*") == "*/*" and self._get(exchange, name.encode(), level)
        return (
            message.method == "PUT" and level is None and self._put(exchange, name.encode(), headers, payload)
        )

    def _get(self, exchange: _Exchange, key: bytes, level: str | None) -> bool:
        service, read = self._service, self._kv.read
        if level is None:
            exchange.begin(lambda _: read(key, LINEARIZABLE))
            exchange.wait(lambda: service.barrier(self._timeout_ms))
        elif level == "lease":
            exchange.begin(lambda _: read(key, Freshness("lease", None)))
            exchange.wait(lambda: service.barrier(self._timeout_ms, by_lease=True))
        else:
            staleness_ms = service.staleness_ms()
            if staleness_ms is None:
                return False
            exchange.begin(lambda _: read(key, Freshness("stale", staleness_ms)))
            exchange.answer(lambda: None)
        return True

    def _put(self, exchange: _Exchange, key: bytes, headers: MultiMapping[str], payload: Any) -> bool:
        try:
            size = int(headers["Content-Length"])
            content_type = content_type_of(headers)
        except (KeyError, RaftkvError):
            return False
        if size > self._max_body_bytes or self._writes.exceeds_quota(len(key) + size):
            return False
        command = encode_put(key, payload.read_nowait(), content_type)
        exchange.begin(lambda result: self._kv.written(key, result))
        exchange.wait(lambda: self._service.propose(command, self._timeout_ms))
        return True


class _Exchange:
    """One of them, until it is answered."""

    __slots__ = ("_began_s", "_connection", "_made", "_message", "_traffic")

    def __init__(self, traffic: Traffic, connection: Connection, message: Any) -> None:
        self._traffic = traffic
        self._connection = connection
        self._message = message

    def begin(self, made: Callable[[Any], Answer]) -> None:
        """It is taken. ``made``: the answer, of what will have been waited for."""
        self._traffic.begun += 1
        self._began_s = perf_counter()
        self._made = made

    def wait(self, ask: Callable[[], Awaitable[Any]]) -> None:
        """Answer once what ``ask`` returns is done; or at once, where that raises."""
        try:
            ticket = asyncio.ensure_future(ask())
        except RaftkvError as error:
            self._send(self._failed(error))
            return
        ticket.add_done_callback(self._done)

    def _done(self, ticket: asyncio.Future[Any]) -> None:
        self.answer(ticket.result)

    def answer(self, result: Callable[[], Any]) -> None:
        try:
            answer = self._made(result())
        except Exception as error:
            answer = self._failed(error)
        self._send(answer)

    def _failed(self, error: Exception) -> Answer:
        return self._traffic.failed(error, self._message.method, self._message.path)

    def _send(self, answer: Answer) -> None:
        traffic, message = self._traffic, self._message
        traffic.ended += 1
        if traffic.is_draining:
            answer.force_close()
        self._connection.answer(answer)
        traffic.timed(message.method, KEY_ROUTE, self._began_s)
        traffic.log(message.method, message.path, answer.status)
