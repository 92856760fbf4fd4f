"""The door that clients come in by: it opens, and closes without turning away who already stands in it.

The kernel connects clients before we accept them, and they may have sent a request by then. Closing a
listening socket resets all whom we have not accepted: their requests would be lost without an answer. So
the door is closed in two steps: the loop accepts no more, then all whom the kernel has connected are taken
in, and the socket is closed in the same breath. What remains is a client whose handshake is under way right
then.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from raftkv.config import Address

_BACKLOG = 1024


class Door:
    """``protocol`` makes the protocol of each connection."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._protocol = protocol
        self._server: asyncio.AbstractServer | None = None
        self._sockets: list[socket.socket] = []  # second handles of those that listen

    async def open(self, at: Address) -> None:
        """Raises ``OSError`` where the port can't be had, or the name not be found."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._protocol, at.host, at.port, backlog=_BACKLOG)
        self._sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in server.sockets]
        self._server = server

    async def close(self) -> None:
        """Accept nobody but who has connected already. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        loop = asyncio.get_running_loop()
        accepted: list[socket.socket] = []
        for each in self._sockets:
            each.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    accepted.append(each.accept()[0])
            each.close()
        for connection in accepted:
            connection.setblocking(False)
            with suppress(OSError):  # it left again
                await loop.connect_accepted_socket(self._protocol, connection)
