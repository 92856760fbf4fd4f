"""Snapshots between peers: one HTTP request each, beside the link, so that no heartbeat waits for one.

``POST /raft/v1/snapshot`` with a stream of ``wire.snapshots``. Answered with 200 when the receiver has it
durable and has become it, or didn't need it; else with another status and the reason as one line of text. A
request that breaks off is forgotten: the next begins anew.

Must not know: Raft's rules, files, what a chunk means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import aiohttp
import structlog
from aiohttp import web

from raftkv.consensus.types import NodeId
from raftkv.transport.hello import Identity, hello_to, objection
from raftkv.transport.limits import LinkLimits
from raftkv.transport.peers import PeerRegister
from raftkv.wire.errors import WireError
from raftkv.wire.reports import Hello
from raftkv.wire.snapshots import Offer, StreamDecoder, StreamEncoder

logger = structlog.get_logger(__name__)

SNAPSHOT_PATH = "/raft/v1/snapshot"

_OK, _BAD, _FORBIDDEN, _TIMEOUT, _TOO_MANY = 200, 400, 403, 408, 429
_MAX_REQUESTS = 16  # at a time, strangers' included; a peer needs one
_MAX_REASON_CHARS = 500


class SnapshotRefused(Exception):
    """The receiver doesn't want it, or not any more. ``status`` is the HTTP answer's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class SnapshotNotTaken(Exception):
    """It didn't arrive, or was refused; one line says why."""


class Incoming(Protocol):
    """A snapshot that is coming. Both raise ``SnapshotRefused``."""

    async def chunk(self, chunk: bytes) -> None:
        """The next one. Whoever takes it may let the sender wait."""
        ...

    async def finish(self) -> None:
        """It came whole. Return when it is durable and in use."""
        ...

    def give_up(self) -> None:
        """It won't come whole, or was refused. Nothing after ``finish``."""
        ...


Offered = Callable[[NodeId, Offer], Incoming | None]
"""What a node does with a peer's offer: None where it needs none of it. Raises ``SnapshotRefused``."""


class SnapshotInlet:
    """The receiving side's handler."""

    def __init__(
        self, *, identity: Identity, register: PeerRegister, on_offer: Offered, limits: LinkLimits
    ) -> None:
        self._identity = identity
        self._register = register
        self._on_offer = on_offer
        self._idle_s = limits.snapshot_idle_timeout_ms / 1000
        self._requests = 0

    async def handle(self, request: web.Request) -> web.Response:
        if self._requests >= _MAX_REQUESTS:
            return web.Response(status=_TOO_MANY, text="too many snapshots at a time\n")
        self._requests += 1
        try:
            status, reason = await self._take(request)
        finally:
            self._requests -= 1
        response = web.Response(status=status, text=f"{reason}\n")
        if status != _OK:
            logger.warning("refused a snapshot", remote=request.remote, status=status, reason=reason)
            response.force_close()  # its body goes on
        return response

    async def _take(self, request: web.Request) -> tuple[int, str]:
        hello: Hello | None = None
        incoming: Incoming | None = None
        decoder = StreamDecoder()
        try:
            async for data in self._bytes(request):
                for item in decoder.feed(data):
                    if isinstance(item, Hello):
                        hello = self._checked(item)
                    elif isinstance(item, Offer):
                        assert hello is not None
                        incoming = self._on_offer(hello.node_id, item)
                        if incoming is None:
                            return _OK, "not needed"
                    else:
                        assert incoming is not None
                        await incoming.chunk(item)
            if not decoder.is_done or incoming is None:
                return _BAD, "the stream ended before the snapshot did"
            await incoming.finish()
            return _OK, "taken"
        except SnapshotRefused as refused:
            return refused.status, _one_line(refused)
        except WireError as error:
            return _BAD, f"damaged on its way: {_one_line(error)}"
        except TimeoutError:
            return _TIMEOUT, f"nothing came for {self._idle_s:g} s"
        except (OSError, aiohttp.ClientError, web.RequestPayloadError) as error:
            return _BAD, f"it broke off: {_one_line(error)}"
        finally:
            if incoming is not None:
                incoming.give_up()

    async def _bytes(self, request: web.Request) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(self._idle_s):
                data = await request.content.readany()
            if not data:
                return
            yield data

    def _checked(self, hello: Hello) -> Hello:
        no = objection(hello, self._identity, self._register, self._register.last_run(hello.node_id))
        if no is not None:
            raise SnapshotRefused(_FORBIDDEN, no.reason)
        return hello


class SnapshotOutlet:
    """The sending side; any number at a time."""

    def __init__(self, *, identity: Identity, register: PeerRegister, limits: LinkLimits) -> None:
        self._identity = identity
        self._register = register
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    async def send(self, peer: NodeId, offer: Offer, chunks: AsyncIterator[Sequence[bytes]]) -> str:
        """Send ``offer`` and its ``chunks`` to ``peer``; what it answered, once it is durable there, or not
        needed.

        Raises ``SnapshotNotTaken``: refused, broken off, or nothing moved for too long. What ``chunks``
        raises ends it, and comes out as it is.
        """
        limits = self._limits
        raised: list[BaseException] = []
        try:
            async with asyncio.timeout(limits.snapshot_idle_timeout_ms / 1000) as patience:
                body = self._body(peer, offer, chunks, patience, raised)
                return await self._post(peer, body)
        except TimeoutError:
            if raised:
                raise raised[0] from None
            raise SnapshotNotTaken(f"{peer} took nothing in {limits.snapshot_idle_timeout_ms} ms") from None
        except (OSError, aiohttp.ClientError, WireError, ValueError) as error:
            if raised:
                raise raised[0] from None
            raise SnapshotNotTaken(_one_line(error)) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post(self, peer: NodeId, body: AsyncIterator[bytes]) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, use_dns_cache=False, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        if peer not in self._register:
            raise ValueError(f"{peer} is no member any more")
        url = f"http://{self._register.address(peer)}{SNAPSHOT_PATH}"
        async with self._session.post(url, data=body, allow_redirects=False) as response:
            try:
                text = (await response.content.read(_MAX_REASON_CHARS)).decode("utf-8", "replace").strip()
            finally:
                response.close()  # it may have answered before it heard all
            if response.status != _OK:
                raise SnapshotNotTaken(f"{peer} refuses it ({response.status}): {_one_line(text)}")
            return text

    async def _body(
        self,
        peer: NodeId,
        offer: Offer,
        chunks: AsyncIterator[Sequence[bytes]],
        patience: asyncio.Timeout,
        raised: list[BaseException],
    ) -> AsyncIterator[bytes]:
        loop, encoder = asyncio.get_running_loop(), StreamEncoder()
        idle_s = self._limits.snapshot_idle_timeout_ms / 1000
        yield encoder.head(hello_to(peer, self._identity), offer)
        try:
            async for some in chunks:
                _extend(patience, loop.time() + idle_s)
                yield encoder.chunks(some)
        except Exception as error:
            raised.append(error)
            raise
        _extend(patience, loop.time() + self._limits.snapshot_answer_timeout_ms / 1000)
        yield encoder.end()


def _extend(patience: asyncio.Timeout, when_s: float) -> None:
    with contextlib.suppress(RuntimeError):  # it is over already
        patience.reschedule(when_s)


def _one_line(what: object) -> str:
    return " ".join(str(what).split())[:_MAX_REASON_CHARS] or type(what).__name__
