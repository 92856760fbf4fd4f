"""The outgoing link to one peer: connects, says hello, writes what is queued, starts again when it breaks.

Rules:
- One task a link and, while it is up, one that reads and one that writes. No task a message.
- Nothing but control frames comes back on it: the peer answers on its own link to us.
- Attempts never stop, and are logged only when their outcome changes.
- A name is resolved anew at every attempt: a restarted container may have another address.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import aiohttp
import structlog

from raftkv.consensus.types import NodeId
from raftkv.transport.hello import (
    LINK_PATH,
    CloseCode,
    Identity,
    Objection,
    Refused,
    common_version,
    hello_to,
    objection,
)
from raftkv.transport.limits import LinkLimits
from raftkv.transport.peers import Direction, PeerRegister
from raftkv.transport.queue import SendQueue
from raftkv.transport.socket import bound_retransmission, ending, next_message, say_goodbye
from raftkv.wire.errors import WireError
from raftkv.wire.frames import OLDEST_VERSION
from raftkv.wire.reports import Hello, decode_hello, encode_hello

logger = structlog.get_logger(__name__)

_STOPPING = Objection(CloseCode.STOPPING, "this node is stopping")
_BROKEN = Objection(CloseCode.STOPPING, "link given up")
# An attempt younger than this isn't worth starting over when the peer shows that it lives.
_FRESH_ATTEMPT_S = 0.25
_MAX_REMEMBERED_FAILURES = 16


class Backoff:
    """Delays that double from ``backoff_min_ms`` to ``backoff_max_ms``, each cut by up to half at random, so
    that nodes that failed together don't come back together.
    """

    def __init__(self, limits: LinkLimits, rng: random.Random) -> None:
        self._limits = limits
        self._rng = rng
        self._next_ms: float = limits.backoff_min_ms

    def reset(self) -> None:
        self._next_ms = self._limits.backoff_min_ms

    def next_s(self) -> float:
        delay_ms = self._next_ms * (1 - self._rng.random() / 2)
        self._next_ms = min(self._next_ms * 2, self._limits.backoff_max_ms)
        return delay_ms / 1000


class OutgoingLink:
    def __init__(
        self,
        peer: NodeId,
        *,
        identity: Identity,
        register: PeerRegister,
        limits: LinkLimits,
        rng: random.Random,
        on_disowned: Callable[[NodeId, str], None] = lambda peer, reason: None,
    ) -> None:
        """``on_disowned`` is told when the peer says that this node isn't who it was; see ``PeerNetwork``."""
        self.peer = peer
        self._on_disowned = on_disowned
        self.queue = SendQueue(peer, limits)
        self._identity = identity
        self._register = register
        self._session: aiohttp.ClientSession | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._limits = limits
        self._backoff = Backoff(limits, rng)
        self._attempts = 0
        self._address = ""  # where the last attempt looked for it
        self._retired = False
        self._retry = asyncio.Event()
        self._attempt: asyncio.Timeout | None = None
        self._attempt_at_s = 0.0
        self._failures: dict[str, str] = {}  # the last at each address, since the link was up
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        # NB: when a connection is lost, aiohttp's WebSocket forgets to close the HTTP response beneath it,
        # which is then reported as unclosed. A trace is the public way to get hold of that response.
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._keep_response)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, use_dns_cache=False, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[trace],
        )
        self._task = asyncio.create_task(self._run(self._session), name=f"link to {self.peer}")

    async def close(self) -> None:
        if self._task is not None:
            if not self._retired:  # a second cancellation would cut the goodbye short
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._session is not None:
            await self._session.close()

    def retire(self) -> None:
        """The peer is none any more: what becomes of this link says nothing. ``close`` is still due.

        NB: it ends at once, not when ``close`` comes to it: the register doesn't know the peer any more.
        """
        self._retired = True
        if self._task is not None:
            self._task.cancel()

    def hurry(self) -> None:
        """The peer has just shown that it lives: don't wait out a delay, nor an attempt that hangs."""
        self._retry.set()
        attempt = self._attempt
        now_s = asyncio.get_running_loop().time()
        if attempt is not None and not attempt.expired() and now_s - self._attempt_at_s > _FRESH_ATTEMPT_S:
            attempt.reschedule(now_s)

    async def _run(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        while True:
            up_at_s = None
            try:
                socket, hello = await self._connect(session)
                up_at_s = loop.time()
                await self._serve(socket, hello)
            except (aiohttp.ClientError, OSError, TimeoutError, WireError, ValueError, Refused) as exc:
                self._note_failure(exc)
            except Exception as exc:  # a bug here must not cost this peer its link for ever
                loop.call_exception_handler({"message": f"link to {self.peer} failed", "exception": exc})
            finally:
                if self._response is not None:
                    self._response.close()
            # NB: only a link that held clears the backoff: two nodes with one id would replace each other's
            # links without a pause.
            if up_at_s is not None and loop.time() - up_at_s > self._limits.backoff_max_ms / 1000:
                self._backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.next_s()):
                    await self._retry.wait()

    async def _connect(self, session: aiohttp.ClientSession) -> tuple[aiohttp.ClientWebSocketResponse, Hello]:
        limits = self._limits
        self._retry.clear()
        # NB: each attempt that fails looks elsewhere next, where there is an elsewhere.
        addresses = self._register.addresses(self.peer)
        self._address = addresses[self._attempts % len(addresses)]
        self._attempts += 1
        self._attempt_at_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limits.connect_timeout_ms / 1000) as self._attempt:
                socket = await session.ws_connect(
                    f"http://{self._address}{LINK_PATH}",
                    autoclose=False,
                    heartbeat=limits.ping_interval_ms / 1000,
                    max_msg_size=limits.max_frame_bytes + 1,
                    timeout=aiohttp.ClientWSTimeout(ws_close=limits.close_timeout_ms / 1000),
                )
                return socket, await self._greet(socket)
        finally:
            self._attempt = None

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> Hello:
        """The peer's hello. Raises ``Refused`` or ``WireError``, and has closed the socket then."""
        why = _BROKEN
        try:
            moved = self._register.has_moved(self._identity.peer_address)
            await socket.send_bytes(encode_hello(hello_to(self.peer, self._identity, moved=moved)))
            message = await next_message(socket)
            if message.type is aiohttp.WSMsgType.CLOSE:
                code = CloseCode(message.data) if message.data in list(CloseCode) else CloseCode.STOPPING
                raise Refused(Objection(code, message.extra or f"code {message.data}"), by_peer=True)
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise WireError(f"no hello: {ending(message, socket)}")
            hello = decode_hello(message.data)
            no = objection(hello, self._identity, (self.peer,), self._register.last_run(self.peer))
            if no is not None:
                why = no
                raise Refused(no, by_peer=False)
            return hello
        except BaseException:
            await say_goodbye(socket, self._limits, why)
            raise

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse, hello: Hello) -> None:
        """Until the link breaks. What ends it is told at once, before the goodbye."""
        bound_retransmission(socket, self._limits)
        self._failures.clear()
        self._attempts -= 1  # the next time here first
        self.queue.open(common_version(hello.versions, self._identity.versions) or OLDEST_VERSION)
        self._register.link_up(Direction.OUT, hello)
        self._register.found(self.peer, self._address)
        watcher = asyncio.create_task(self._watch(socket))
        writer = asyncio.create_task(self._write(socket))
        why = _STOPPING
        reason = _STOPPING.reason
        try:
            await asyncio.wait((watcher, writer), return_when=asyncio.FIRST_COMPLETED)
            why = _BROKEN
            reason = watcher.result() if watcher.done() else f"broken: {writer.exception()}"
        finally:
            self.queue.close()
            if not self._retired:
                self._register.link_down(self.peer, Direction.OUT, reason)
            watcher.cancel()
            writer.cancel()
            await asyncio.gather(watcher, writer, return_exceptions=True)
            await say_goodbye(socket, self._limits, why)

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        """Reads for the sake of pings, pongs and the end; returns why it ended."""
        message = await next_message(socket)
        if message.type is aiohttp.WSMsgType.BINARY:
            return "the peer sent a frame on our link to it"
        return ending(message, socket)

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        queue = self.queue
        while True:
            frame = queue.take()
            if frame is None:
                await queue.filled()
            else:
                # Suspends only where the peer doesn't keep up, and then for as long as it doesn't.
                await socket.send_bytes(frame)

    async def _keep_response(
        self, session: aiohttp.ClientSession, context: object, params: aiohttp.TraceRequestEndParams
    ) -> None:
        self._response = params.response

    def _note_failure(self, exc: Exception) -> None:
        if isinstance(exc, TimeoutError):
            text = f"no answer in {self._limits.connect_timeout_ms} ms"
        elif isinstance(exc, aiohttp.WSServerHandshakeError):
            text = f"not a raftkv peer port: answered HTTP {exc.status}"
        else:
            text = " ".join(str(exc).split()) or type(exc).__name__
        address = self._address
        if text == self._failures.get(address):
            return
        if len(self._failures) >= _MAX_REMEMBERED_FAILURES:
            self._failures.clear()
        self._failures[address] = text
        if isinstance(exc, Refused):
            who = "peer refuses this node" if exc.by_peer else "wrong node at the peer's address"
            logger.error(who, peer=self.peer, address=address, code=int(exc.objection.code), reason=text)
            if exc.by_peer and exc.objection.code is CloseCode.STARTED_OVER:
                self._on_disowned(self.peer, text)
        else:
            logger.info("can't connect to peer, trying on", peer=self.peer, address=address, reason=text)
