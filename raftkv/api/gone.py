"""A request that waits for long must notice that its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


async def while_connected(request: web.BaseRequest, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns. It is cancelled when the client closes its connection."""
    connection: Any = request.protocol  # an ``connection.Connection``
    task = asyncio.ensure_future(work)
    if request.transport is None:
        task.cancel()
    connection.when_lost.add(task)
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        connection.when_lost.discard(task)
