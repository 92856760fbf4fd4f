"""A whole answer: its head made at once, and written with its body in one piece.

It stands in for ``aiohttp.web.Response``, which builds a head from three mappings and takes four times as
long: a third of all that a read costs. See docs/decisions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

Headers = dict[str, str]
"""By their names, each spelt in one way only."""

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_JOINED_BYTES = 64 << 10  # a larger body isn't copied to stand behind its head


def lines_of(headers: Mapping[str, str]) -> str:
    """As they are sent. Raises ValueError where one would end its line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError(f"a header has a line break in it: {dict(headers)}")
    return lines


class Answer(web.StreamResponse):
    """Complete as it is made: nothing but ``force_close`` changes it. For any request method."""

    def __init__(self, head: Mapping[str, str] | str, body: bytes = b"", status: int = 200) -> None:
        """``head``: the headers, or their lines (``lines_of``); all but Content-Length, Date and Connection.
        Raises ValueError where a header would end its line.
        """
        # NB: not the superclass's, which would make what nothing here uses.
        self._head = head if isinstance(head, str) else lines_of(head)
        self._answer_status = status
        self._whole_body = body
        self._closes = False

    @property
    def status(self) -> int:
        return self._answer_status

    @property
    def keep_alive(self) -> bool:
        return not self._closes

    def force_close(self) -> None:
        self._closes = True

    def send(
        self, transport: asyncio.WriteTransport, *, is_head: bool = False, says_alive: bool = False
    ) -> None:
        """``is_head``: to a HEAD; ``says_alive``: to a client whose connections end unless they are told."""
        body = self._whole_body
        head = f"{_STATUS_LINES[self._answer_status]}{self._head}{_date_line(int(time.time()))}"
        # The length is that of a GET's answer, which isn't known here without a body (RFC 9110 section 8.6).
        if body or (self._answer_status != HTTPStatus.NOT_MODIFIED and not is_head):
            head += f"Content-Length: {len(body)}\r\n"
        if self._closes:
            head += "Connection: close\r\n"
        elif says_alive:
            head += "Connection: keep-alive\r\n"
        head += "\r\n"
        if is_head or not body:
            transport.write(head.encode())
        elif len(body) <= _JOINED_BYTES:
            transport.write(head.encode() + body)
        else:
            transport.writelines((head.encode(), body))

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send it. Raises ConnectionResetError where nobody is there any more."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._closes = self._closes or not request.keep_alive
        self.send(transport, is_head=request.method == "HEAD", says_alive=request.version == HttpVersion10)
        writer = request.writer
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """All is written."""


@lru_cache(maxsize=1)
def _date_line(now_s: int) -> str:
    return f"Date: {formatdate(now_s, usegmt=True)}\r\n"
