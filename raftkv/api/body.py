"""Small JSON bodies in, JSON out: what the handlers of the cluster share."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web
from multidict import CIMultiDict

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


def json_response(body: Any, status: int = 200) -> web.Response:
    headers = CIMultiDict({"Content-Type": "application/json"})
    return web.Response(
        status=status, body=orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n", headers=headers
    )
