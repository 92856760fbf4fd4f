"""An answer that may be larger than memory: its head at once, its body bit by bit.

As ``exchange``, but it is open until it is closed. Until the first bytes of the body are here nothing has
happened; so another endpoint may be asked instead.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from raftkv.client.exchange import Endpoint, NoReply, NotSent, Reply, Request, reason_of, send

_FIRST_BYTES = 512


class Download:
    """``status`` and lower-case ``headers``; the body by ``read``. Close it."""

    def __init__(
        self, endpoint: Endpoint, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self.endpoint = endpoint
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.getheaders()}
        self._connection = connection
        self._response = response
        self._first = b""

    def read(self, size_bytes: int) -> bytes:
        """The next ``size_bytes``; fewer only at the end of the body. Raises ``NoReply`` if that wasn't the
        end, or nothing came for too long.
        """
        first, self._first = self._first[:size_bytes], self._first[size_bytes:]
        if len(first) == size_bytes:
            return first
        return first + self._more(size_bytes - len(first))

    def peek(self) -> None:
        """Wait for the body's first bytes. Raises ``NoReply``."""
        self._first = self._more(_FIRST_BYTES)

    def line(self) -> bytes:
        """The next line, as soon as all of it is here; b"" at the end of the body, also where that is in the
        middle of a line. Raises ``NoReply`` if that wasn't the end, or nothing came for too long.
        """
        try:
            line = self._response.readline()
        except (OSError, http.client.HTTPException) as error:
            raise NoReply(reason_of(error)) from error
        return line if line.endswith(b"\n") else b""

    def whole(self) -> Reply:
        """The answer with all of its body. Raises ``NoReply``."""
        try:
            body = self._response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoReply(reason_of(error)) from error
        return Reply(self.endpoint, self.status, self.headers, body)

    def _more(self, size_bytes: int) -> bytes:
        try:
            data = self._response.read(size_bytes)
            if len(data) < size_bytes and self._response.length:  # NB: http.client takes that for the end
                raise http.client.IncompleteRead(data, self._response.length)
            return data
        except ConnectionError as error:
            raise NoReply("the connection broke in the middle of the answer") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoReply(reason_of(error)) from error

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def begin_download(
    endpoint: Endpoint,
    request: Request,
    timeout_s: float,
    *,
    server_timeout_ms: int | None = None,
    stall_s: float,
    peeks: bool = True,
) -> Download:
    """Send ``request``, wait for the head of its answer and (``peeks``) the first bytes of its body,
    ``timeout_s`` at most, and from then on ``stall_s`` at most for each piece of it.

    Raises ``NotSent`` or ``NoReply``.
    """
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise NotSent(reason_of(error)) from error
        sock = connection.sock
        try:
            send(connection, request, server_timeout_ms)
            download = Download(endpoint, connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise NoReply(reason_of(error)) from error
        if peeks and download.status < 300:
            download.peek()
        if sock.fileno() >= 0:  # NB: http.client has let go of it, but it is open as long as the response is
            sock.settimeout(stall_s)
        return download
    except BaseException:
        connection.close()
        raise
