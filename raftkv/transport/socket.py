"""What both ends of a link do with their WebSocket; aiohttp's two classes differ in type only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import aiohttp
from aiohttp import web

from raftkv.transport.hello import Objection
from raftkv.transport.limits import LinkLimits

Socket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse


def bound_retransmission(connection: Socket, limits: LinkLimits) -> None:
    """Give up on unacknowledged bytes after two ping intervals (Linux only).

    Pings find a dead peer too, but a transport with unsent bytes lives on after ``close()`` until they are
    sent: without this, a frozen peer would leave a socket and its buffer behind for minutes.
    """
    handle = connection.get_extra_info("socket")
    if handle is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2 * limits.ping_interval_ms)


async def next_message(connection: Socket) -> aiohttp.WSMessage:
    """What comes next, a lost connection included: see ``ending``.

    NB: aiohttp answers pings in here, and lets the failure out where the connection is closing just then.
    """
    try:
        return await connection.receive()
    except (OSError, aiohttp.ClientError) as error:
        return aiohttp.WSMessage(aiohttp.WSMsgType.ERROR, error, None)


async def say_goodbye(connection: Socket, limits: LinkLimits, why: Objection) -> None:
    """Close with a code and a reason; don't wait long for the other side. Raises only when cancelled."""
    # NB: close() may wait for a peer that reads nothing; the cancelled call drops the connection.
    with contextlib.suppress(TimeoutError, OSError, aiohttp.ClientError):
        async with asyncio.timeout(limits.close_timeout_ms / 1000):
            await connection.close(code=why.code, message=why.message)


def ending(message: Any, connection: Socket) -> str:
    """Why ``receive`` gave something else than a binary frame: one line."""
    if message.type is aiohttp.WSMsgType.CLOSE:
        return f"closed by the peer: {message.data} {message.extra or ''}".rstrip()
    if message.type is aiohttp.WSMsgType.TEXT:
        return "the peer sent a text frame"
    error = message.data if message.type is aiohttp.WSMsgType.ERROR else connection.exception()
    if error is None or isinstance(error, ConnectionError):
        return "connection lost"  # aiohttp's text would be about its failed goodbye, not about the loss
    return f"broken: {error or type(error).__name__}"
