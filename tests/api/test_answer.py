"""Whole answers, byte for byte, as a client's socket has them."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import web

from raftkv.api.answer import Answer, lines_of
from raftkv.api.consistency import Freshness, common_headers, common_lines, type_line
from tests.api.node import FakeService

_DATE = re.compile(rb"Date: (Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT\r\n")
_HEADERS = {"Content-Type": "text/plain", "ETag": '"7"'}
_KNOWN = b'Content-Type: text/plain\r\nETag: "7"\r\n'


async def _asked(raw: bytes, *answers: Answer) -> bytes:
    """What one connection that sends ``raw`` is sent until it is closed, less the Date of each answer."""
    left = list(answers)

    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return left.pop(0)

    server = await asyncio.get_running_loop().create_server(
        web.Server(handle, access_log=None), "127.0.0.1", 0
    )
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(raw)
        sent = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    finally:
        server.close()
    without_dates, dates = _DATE.subn(b"", sent)
    assert dates == len(answers)
    return without_dates


async def test_an_answer_and_the_next_on_the_same_connection() -> None:
    last = Answer({}, b"", 404)
    last.force_close()
    sent = await _asked(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2, Answer(_HEADERS, b"abc", 201), last)
    assert sent == (
        b"HTTP/1.1 201 Created\r\n" + _KNOWN + b"Content-Length: 3\r\n\r\nabc"
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


async def test_the_client_may_want_no_other() -> None:
    sent = await _asked(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Answer(_HEADERS, b"abc"))
    assert sent == b"HTTP/1.1 200 OK\r\n" + _KNOWN + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"


async def test_http_1_0_ends_unless_asked_to_stay() -> None:
    stays = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    sent = await _asked(stays + b"GET / HTTP/1.0\r\n\r\n", Answer({}, b"a"), Answer({}, b"b"))
    assert sent == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb"
    )


@pytest.mark.parametrize(("body", "length"), [(b"abc", b"Content-Length: 3\r\n"), (b"", b"")])
async def test_head_has_the_length_of_what_it_leaves_out(body: bytes, length: bytes) -> None:
    sent = await _asked(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Answer(_HEADERS, body))
    assert sent == b"HTTP/1.1 200 OK\r\n" + _KNOWN + length + b"Connection: close\r\n\r\n"


async def test_not_modified_has_no_body_and_no_length() -> None:
    sent = await _asked(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Answer({"ETag": '"7"'}, status=304)
    )
    assert sent == b'HTTP/1.1 304 Not Modified\r\nETag: "7"\r\nConnection: close\r\n\r\n'


async def test_a_body_that_no_buffer_takes_at_once() -> None:
    body = bytes(range(256)) * (64 << 10)
    sent = await _asked(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Answer({}, body))
    assert sent.partition(b"\r\n\r\n")[2] == body


async def test_a_content_type_that_is_not_ascii() -> None:
    sent = await _asked(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Answer({"Content-Type": "text/ö"})
    )
    assert "Content-Type: text/ö\r\n".encode() in sent


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb"])
def test_a_header_that_would_end_its_line_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        Answer({"Content-Type": value})


@pytest.mark.parametrize("freshness", [Freshness("lease", None), Freshness("stale", 12.4)])
@pytest.mark.parametrize("leads", [True, False])
async def test_the_hot_path_s_lines_are_the_headers_that_all_others_have(
    freshness: Freshness, leads: bool
) -> None:
    service = FakeService()
    if not leads:
        service.leader = None
    headers = common_headers(service, 5, "text/plain")
    freshness.note(headers)
    assert lines_of(headers) == type_line("text/plain") + common_lines(service, 5) + freshness.lines()
