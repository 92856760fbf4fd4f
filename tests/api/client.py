"""HTTP/1.1 byte by byte over a blocking socket: what a client library wouldn't let us send, or see."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.api.node import DEADLINE_S, RestNode

Headers = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Reply:
    """``headers`` by lower-case name; one that came twice is joined with a comma."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One keep-alive connection. Every read has a deadline, so that a server that hangs fails the test."""

    def __init__(self, node: RestNode) -> None:
        self._socket = socket.create_connection(("127.0.0.1", node.port), timeout=DEADLINE_S)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def end(self) -> None:
        """Say that nothing more will be sent; answers can still come."""
        with suppress(OSError):  # the server was quicker
            self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def request(
        self, method: str, target: str | bytes, headers: Headers = (), body: bytes | None = None
    ) -> Reply:
        self.send(request_bytes(method, target, headers, body))
        return self.reply(method)

    def reply(self, method: str = "GET") -> Reply:
        """The next answer; ``method`` is the request's, for an answer to HEAD has no body."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/"), f"no answer but {line!r}"  # the version is the request's
        status = int(line.split(b" ")[1])
        headers: dict[str, str] = {}
        while (line := self._file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), f"a header ends in {line!r}"
            name, _, value = line.decode().rstrip("\r\n").partition(": ")
            headers[name.lower()] = ", ".join(filter(None, (headers.get(name.lower()), value)))
        without_body = method == "HEAD" or status < 200 or status in (204, 304)
        length = 0 if without_body else int(headers["content-length"])
        body = self._file.read(length)
        assert len(body) == length, "the connection broke within an answer"
        return Reply(status, headers, body)

    def is_closed(self) -> bool:
        """Whether the server closed the connection, and sent nothing before. Waits for either."""
        try:
            return self._file.peek(1) == b""
        except ConnectionResetError:
            return True


def request_bytes(
    method: str, target: str | bytes, headers: Headers = (), body: bytes | None = None
) -> bytes:
    raw_target = target.encode() if isinstance(target, str) else target
    lines = [b"%s %s HTTP/1.1" % (method.encode(), raw_target), b"Host: test"]
    for name, value in headers:
        lines.append(name.encode() + b": " + (value.encode() if isinstance(value, str) else value))
    if body is not None and not any(name.lower() == "transfer-encoding" for name, _ in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def quote(key: bytes) -> str:
    """Every byte percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in key)
