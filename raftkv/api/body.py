"""Small JSON bodies in, JSON out: what the handlers of the cluster share."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.errors import BadRequest, TooLarge

MAX_BODY_BYTES = 4096


async def small_body(request: web.BaseRequest, within_ms: float) -> bytes:
    """Raises ``TooLarge``, or ``BadRequest`` where it doesn't come in time or can't be read."""
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise TooLarge(f"the body has {length} bytes; at most {MAX_BODY_BYTES} are allowed here")
    try:
        async with asyncio.timeout(within_ms / 1000):
            body = await request.read()
    except TimeoutError:
        raise BadRequest(f"the body did not come within {within_ms:.0f} ms") from None
    except (web.HTTPRequestEntityTooLarge, web.RequestPayloadError) as error:
        raise BadRequest(f"the body can't be read: {' '.join(str(error).split())[:200]}") from None
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"the body is larger than {MAX_BODY_BYTES} bytes")
    return body


async def whole_body(request: web.BaseRequest, limit: int, left_ms: float, what: str) -> tuple[bytes, float]:
    """The body, and what it left of ``left_ms``. Raises ``TooLarge`` beyond ``limit`` bytes, ``BadRequest``
    where it doesn't come in time, or can't be read.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise TooLarge(f"{what} has {length} bytes; at most {limit} are allowed")
    if not request.body_exists:
        return b"", left_ms
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        if request.content.is_eof():  # as nearly always: it came with the head
            body = request.content.read_nowait()
        else:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(left_ms / 1000) as waiting:
                body = await request.read()
            left_ms = max(0.0, ((waiting.when() or 0.0) - loop.time()) * 1000)
    except TimeoutError:
        raise BadRequest(f"the body did not come within {left_ms:.0f} ms") from None
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body is larger than {request.client_max_size} bytes") from None
    except web.RequestPayloadError as error:
        raise BadRequest(f"the body can't be read: {' '.join(str(error).split())[:200]}") from None
    if len(body) > limit:
        raise TooLarge(f"{what} has {len(body)} bytes; at most {limit} are allowed")
    return body, left_ms


def json_response(body: Any, status: int = 200) -> Answer:
    headers = {"Content-Type": "application/json"}
    return Answer(headers, orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n", status)
