"""One HTTP request to one endpoint, and what is known when it fails.

Rules: nothing is repeated and no redirect is followed here. A failure says on which side of the line it
happened: ``NotSent`` before a byte of the request left, ``NoReply`` after. Must not know keys, values or
clusters.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

DEFAULT_PORT = 80


class NotSent(Exception):
    """The endpoint was not reached: the request was certainly not executed. The message is the reason."""


class NoReply(Exception):
    """The request may have been executed; no whole answer came. The message is the reason."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node listens to clients."""

    host: str
    port: int

    @staticmethod
    def parse(text: str) -> Endpoint:
        """Read ``http://host:port`` or ``host:port``.

        Raises ``ValueError`` with a message for a person.
        """
        url = text.strip().rstrip("/")
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"{text!r} is no endpoint: {error}") from None
        if (
            parts.scheme != "http"
            or not host
            or parts.path
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ValueError(f"{text!r} is no endpoint: give http://host:port")
        return Endpoint(host, DEFAULT_PORT if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` is percent-encoded already; ``query`` values are text or raw bytes and are encoded here."""

    method: str
    path: str
    query: tuple[tuple[str, str | bytes], ...] = ()
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def target(self, timeout_ms: int | None = None) -> str:
        """Path and query; ``timeout_ms``, where given, tells the node how long it may take."""
        pairs = list(self.query)
        if timeout_ms is not None:
            pairs.append(("timeout", f"{timeout_ms}ms"))
        return f"{self.path}?{urlencode(pairs, quote_via=quote, safe='')}" if pairs else self.path


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, whatever its status. ``headers`` have lower-case names."""

    endpoint: Endpoint
    status: int
    headers: Mapping[str, str]
    body: bytes


def exchange(
    endpoint: Endpoint, request: Request, timeout_s: float, server_timeout_ms: int | None = None
) -> Reply:
    """Send ``request`` and wait for its whole answer, ``timeout_s`` at most (connecting included).

    Raises ``NotSent`` or ``NoReply``.
    """
    deadline = time.monotonic() + timeout_s
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    try:
        try:
            connection.connect()
        except OSError as error:
            raise NotSent(reason_of(error)) from error
        try:
            _limit(connection, deadline)
            send(connection, request, server_timeout_ms)
            _limit(connection, deadline)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(endpoint, response.status, headers, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise NoReply(reason_of(error)) from error
    finally:
        connection.close()


def send(connection: http.client.HTTPConnection, request: Request, server_timeout_ms: int | None) -> None:
    """``server_timeout_ms`` tells the node how long it may take."""
    headers = {"Connection": "close", **dict(request.headers)}
    # NB: a node that refuses a large body (413) answers and closes while we still send: its answer is there
    # to be read. If it isn't, getresponse fails too, and that is a NoReply.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(request.method, request.target(server_timeout_ms), request.body, headers)


def _limit(connection: http.client.HTTPConnection, deadline: float) -> None:
    # http.client lets go of its socket once a response that closes has been read; before that it is there.
    if isinstance(connection.sock, socket.socket):
        connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))


def reason_of(error: Exception) -> str:
    """Why an exchange failed, for a person."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return "the connection was closed without an answer"
        case http.client.IncompleteRead():
            return "the connection was closed in the middle of the answer"
        case socket.gaierror():
            return "unknown host name"
        case OSError() if error.strerror:
            return error.strerror.lower()
        case http.client.HTTPException():
            return "the answer is not HTTP"
        case _:
            return str(error) or type(error).__name__
