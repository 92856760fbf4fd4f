"""The peer port: takes incoming links, and hands their frames on.

Rules:
- Whatever arrives, the node keeps serving: garbage gets a 4xx or a close, and one log line.
- One incoming link a peer: a new one replaces the old, which the peer has given up or forgotten.
- Envelopes are from the link's peer and to this node, or the link is closed.
- A frame is handed on as it comes, from the receive loop, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import web

from raftkv.consensus.messages import Envelope
from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.transport.hello import LINK_PATH, CloseCode, Identity, Objection, hello_to, objection
from raftkv.transport.limits import LinkLimits
from raftkv.transport.peers import Direction, PeerRegister
from raftkv.transport.snapshots import SNAPSHOT_PATH, SnapshotInlet
from raftkv.transport.socket import bound_retransmission, ending, next_message, say_goodbye
from raftkv.wire.codec import read_envelopes
from raftkv.wire.errors import WireError
from raftkv.wire.frames import FrameKind, open_frame
from raftkv.wire.reports import Hello, decode_hello, decode_status, encode_hello

logger = structlog.get_logger(__name__)

_MAX_HANDSHAKES = 64  # strangers at a time; a peer needs one
_MAX_REMEMBERED_REFUSALS = 256
_REFUSAL_LOG_INTERVAL_S = 60.0


class _NotAPeer(logging.Handler):
    """aiohttp's complaints about bytes that aren't HTTP, as one line without the traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        detail = " ".join(str(error or record.getMessage()).split())[:200]
        logger.info("not a peer on the peer port", detail=detail)


@dataclass(frozen=True, slots=True, eq=False)
class _IncomingLink:
    hello: Hello
    request: web.Request
    socket: web.WebSocketResponse


class Listener:
    def __init__(
        self,
        *,
        identity: Identity,
        register: PeerRegister,
        on_envelopes: Callable[[Sequence[Envelope]], None],
        on_link: Callable[[NodeId], None],
        on_link_end: Callable[[NodeId], None],
        limits: LinkLimits,
        inlet: SnapshotInlet | None = None,
    ) -> None:
        """``on_link`` is told of each incoming link that is established, ``on_link_end`` when there is none
        from that node any more. ``inlet`` takes snapshots.
        """
        self._inlet = inlet
        self._identity = identity
        self._register = register
        self._on_envelopes = on_envelopes
        self._on_link = on_link
        self._on_link_end = on_link_end
        self._limits = limits
        self._links: dict[NodeId, _IncomingLink] = {}
        self._handshakes = 0
        self._refusals: dict[tuple[str | None, CloseCode], float] = {}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Bind and serve. Returns the port: the kernel's choice for 0. Raises ``StartError`` (73)."""
        app = web.Application()
        app.router.add_get(LINK_PATH, self._handle, allow_head=False)
        if self._inlet is not None:
            app.router.add_post(SNAPSHOT_PATH, self._inlet.handle)
        http_logger = logging.Logger("raftkv.transport.http")
        http_logger.addHandler(_NotAPeer())
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_logger,
            keepalive_timeout=5.0,
            shutdown_timeout=self._limits.close_timeout_ms / 1000,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as exc:
            await runner.cleanup()
            reason = exc.strerror or str(exc)
            raise StartError(f"can't listen for peers on {host}:{port}: {reason}", 73) from exc
        self._runner = runner
        bound: int = runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        why = Objection(CloseCode.STOPPING, "this node is stopping")
        await asyncio.gather(
            *(say_goodbye(link.socket, self._limits, why) for link in list(self._links.values()))
        )
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def dismiss(self, node: NodeId) -> None:
        """Give up the link from ``node``, which is no peer any more."""
        link = self._links.pop(node, None)
        if link is not None and link.request.transport is not None:
            link.request.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._handshakes >= _MAX_HANDSHAKES:
            raise web.HTTPServiceUnavailable(text="too many handshakes\n")
        socket = web.WebSocketResponse(
            autoclose=False,
            compress=False,
            heartbeat=self._limits.ping_interval_ms / 1000,
            max_msg_size=self._limits.max_frame_bytes + 1,
            timeout=self._limits.close_timeout_ms / 1000,
        )
        self._handshakes += 1
        try:
            await socket.prepare(request)
            hello = await self._greet(request, socket)
        finally:
            self._handshakes -= 1
        if hello is not None:
            await self._serve(_IncomingLink(hello, request, socket))
        return socket

    async def _greet(self, request: web.Request, socket: web.WebSocketResponse) -> Hello | None:
        """The connector's hello, once answered; None where it was refused, or went away."""
        try:
            # NB: not receive(timeout=...), which starts anew at every ping: a stranger could stay for ever.
            async with asyncio.timeout(self._limits.connect_timeout_ms / 1000):
                message = await next_message(socket)
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise WireError(f"no hello: {ending(message, socket)}")
            hello = decode_hello(message.data)
            register, sender = self._register, hello.node_id
            welcome = (sender,) if register.has_room_for(hello) else ()
            no = objection(hello, self._identity, welcome, register.last_run(sender))
        except TimeoutError:
            no = Objection(CloseCode.NO_HELLO, f"no hello in {self._limits.connect_timeout_ms} ms")
        except WireError as exc:
            no = Objection(CloseCode.MALFORMED, str(exc))
        if no is not None:
            self._note_refusal(request.remote, no)
            await say_goodbye(socket, self._limits, no)
            return None
        try:
            moved = register.has_moved(self._identity.peer_address)
            await socket.send_bytes(encode_hello(hello_to(sender, self._identity, moved=moved)))
        except (OSError, aiohttp.ClientError):
            return None
        # NB: others may have come, or the members may have changed, while that was sent.
        return hello if register.has_room_for(hello) else None

    async def _serve(self, link: _IncomingLink) -> None:
        """Until the link breaks or is replaced."""
        bound_retransmission(link.socket, self._limits)
        node = link.hello.node_id
        self._establish(link)
        why = Objection(CloseCode.STOPPING, "link given up")
        reason = "this node is stopping"
        try:
            reason = await self._receive(link)
        except _Unwelcome as exc:
            why, reason = exc.why, exc.why.reason
        except (
            Exception
        ) as exc:  # whoever took the envelopes failed; the holder of the loop decides what that means
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"handling a frame of {node} failed", "exception": exc}
            )
            why, reason = Objection(CloseCode.FAULT, "internal error"), f"internal error: {exc!r}"
        finally:
            if self._links.get(node) is link:
                del self._links[node]
                self._register.link_down(node, Direction.IN, reason)
                self._on_link_end(node)
        await say_goodbye(link.socket, self._limits, why)

    def _establish(self, link: _IncomingLink) -> None:
        node = link.hello.node_id
        old = self._links.get(node)
        self._links[node] = link
        if old is not None:
            if old.request.transport is not None:
                old.request.transport.abort()
            if old.hello.incarnation != link.hello.incarnation:
                # The process at the other end of the old link is gone, and nobody told us.
                self._register.link_down(node, Direction.IN, "replaced by the peer's next run")
        if old is None or old.hello.incarnation != link.hello.incarnation:
            self._register.link_up(Direction.IN, link.hello)
        self._on_link(node)

    async def _receive(self, link: _IncomingLink) -> str:
        """Why the link ended. Raises ``_Unwelcome`` for what doesn't belong on it."""
        node, me = link.hello.node_id, self._identity.node_id
        while True:
            message = await next_message(link.socket)
            if message.type is not aiohttp.WSMsgType.BINARY:
                return ending(message, link.socket)
            try:
                kind, items = open_frame(message.data)
                if kind is FrameKind.ENVELOPES:
                    envelopes = read_envelopes(items)
                elif kind is FrameKind.STATUS:
                    self._register.report(node, decode_status(message.data))
                    continue
                else:
                    raise WireError("a second hello")
            except WireError as exc:
                raise _Unwelcome(CloseCode.MALFORMED, f"malformed frame: {exc}") from None
            for envelope in envelopes:
                if envelope.sender != node or envelope.receiver != me:
                    raise _Unwelcome(
                        CloseCode.FOREIGN_ENVELOPE,
                        f"{node} sent {me} a message from {envelope.sender} to {envelope.receiver}",
                    )
            self._on_envelopes(envelopes)

    def _note_refusal(self, remote: str | None, no: Objection) -> None:
        """One line a minute for each (address, code): a refused node tries again every second."""
        now_s = asyncio.get_running_loop().time()
        key = (remote, no.code)
        if now_s - self._refusals.get(key, float("-inf")) < _REFUSAL_LOG_INTERVAL_S:
            return
        if len(self._refusals) >= _MAX_REMEMBERED_REFUSALS:
            self._refusals.clear()
        self._refusals[key] = now_s
        logger.warning("refused a link", remote=remote, code=int(no.code), reason=no.reason)


class _Unwelcome(Exception):
    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.why = Objection(code, reason)
