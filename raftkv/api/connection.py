"""A client's connection: aiohttp's, but that plain requests take a shorter way than through a task.

aiohttp makes a task, a writer and a request object for each request, and wakes two tasks until it is
answered; a plain GET or PUT (``plain.py``) needs none of that. So a ``_Sieve`` stands between the connection
and aiohttp's parser: a plain request on an idle connection is taken out and answered there, and the rest of
aiohttp never hears of it. All others go on as ever. See docs/decisions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from raftkv.api.answer import Answer
from raftkv.api.problem import problem
from raftkv.errors import BadRequest, Outcome, RaftkvError, UriTooLong

logger = structlog.get_logger(__name__)

MAX_HEADER_BYTES = 16_384
MAX_LINE_BYTES = 32_768  # a key of 4 KiB may take 12 KiB percent-encoded
KEEPALIVE_S = 75.0


class Taker(Protocol):
    """Who answers plain requests."""

    def take(self, connection: Connection, message: Any, payload: Any) -> bool:
        """Whether it is one, and was taken: it will be answered by ``connection.answer``. ``message``,
        ``payload``: as aiohttp's parser makes them.
        """
        ...


class Connection(web.RequestHandler):
    """Answers unreadable requests in our form, too. When it is lost, what works for that client alone is
    cancelled (``gone.while_connected``).
    """

    __slots__ = ("_early", "_is_busy", "_taker", "when_lost")

    def __init__(
        self, manager: web.Server, loop: asyncio.AbstractEventLoop, taker: Taker, **settings: Any
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            keepalive_timeout=KEEPALIVE_S,
            **settings,
        )
        self.when_lost: set[asyncio.Task[Any]] = set()
        self._taker = taker
        self._is_busy = False  # with a plain request
        self._early = b""  # what came meanwhile
        self._parser: Any = _Sieve(self._parser, self)

    # -- plain requests ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._is_busy:
            super().data_received(data)
            return
        # Its answer must not overtake the one that is under way: who sends it ahead has to wait.
        self._early += data
        self._pause_transport_reading()

    def take(self, message: Any, payload: Any) -> bool:
        # NB: only where aiohttp has nothing under way here, and waits for the next request.
        if self._waiter is None or self._messages or self.writing_paused:
            return False
        self._is_busy = True
        if self._taker.take(self, message, payload):
            return True
        self._is_busy = False
        return False

    def answer(self, answer: Answer) -> None:
        """Answer the plain request that was taken."""
        self._is_busy = False
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_S
        answer.send(transport)
        if not answer.keep_alive:
            transport.close()  # when all is sent
            return
        if self._early:
            early, self._early = self._early, b""
            self._resume_transport_reading()
            self.data_received(early)

    # -- the rest ------------------------------------------------------------------------------------------

    def resume_reading(self, resume_parser: bool = True) -> None:
        # A body's reader calls this with every piece. Where nothing is paused, there is nothing to do.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _process_keepalive(self) -> None:
        if self._is_busy:  # aiohttp takes it for idle
            self._next_keepalive_close_time = self._loop.time() + KEEPALIVE_S
        super()._process_keepalive()

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
        response = problem(_error(status, exc, message))
        # NB: not the connection's own force_close, which would drop the answer: it closes once that is sent.
        response.force_close()
        return response


class _Sieve:
    """aiohttp's parser, less the plain requests."""

    def __init__(self, parser: Any, connection: Connection) -> None:
        self._parser = parser
        self._connection = connection

    def feed_data(self, data: bytes) -> tuple[Sequence[Any], bool, bytes]:
        found: tuple[Sequence[Any], bool, bytes] = self._parser.feed_data(data)
        messages, is_upgraded, _ = found
        if len(messages) == 1 and not is_upgraded and self._connection.take(*messages[0]):
            self._parser.message_consumed()
            return (), False, b""
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _error(status: int, exc: BaseException | None, message: str | None) -> RaftkvError:
    if isinstance(exc, ConnectionError):  # the client is gone: nobody reads this
        return RaftkvError("the connection broke", outcome=Outcome.UNKNOWN)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("a connection failed", error=repr(exc))
        return RaftkvError("the server made a mistake", outcome=Outcome.UNKNOWN)
    reason = " ".join((message or str(exc) or "unreadable").split())[:200]
    if isinstance(exc, LineTooLong) and exc.args[1] == MAX_LINE_BYTES:
        return UriTooLong(f"the path and query are too long: at most {MAX_LINE_BYTES} bytes")
    if isinstance(exc, LineTooLong):
        return BadRequest(f"a header is too long: at most {MAX_HEADER_BYTES} bytes")
    return BadRequest(f"this is no readable HTTP request: {reason}")
