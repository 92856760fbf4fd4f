"""``?wait=30s&since=N``: a read that waits until its key has changed after revision N."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from raftkv.api.gone import while_connected
from raftkv.api.limits import Limits
from raftkv.api.params import duration_ms, number_of
from raftkv.api.streams import Bell, Streams
from raftkv.errors import BadRequest
from raftkv.kv.machine import KvMachine
from raftkv.kv.watch import Compacted, Hub
from raftkv.ports import Service

PARAMS = ("wait", "since")

_MAX_REVISION = 10**18 - 1


class Polls:
    def __init__(self, service: Service, machine: KvMachine, limits: Limits, streams: Streams) -> None:
        self._service = service
        self._store = machine.store
        self._limits = limits
        self._streams = streams

    async def has_changed(self, request: web.BaseRequest, key: bytes, params: Mapping[str, bytes]) -> bool:
        """Whether ``key`` was put or deleted after the revision ``since`` (none given: from now on): at once
        if it was, else within ``wait``. False too when this node stops meanwhile: wait on at another.

        To be asked when the node may answer. Raises ``BadRequest``, ``TooManyRequests``, ``ShuttingDown``.
        """
        if "wait" not in params:
            raise BadRequest("since goes with wait=, how long to wait for a change")
        if "revision" in params:
            raise BadRequest("what was at a revision doesn't change: give revision or wait")
        wait_ms = duration_ms(params["wait"].decode("utf-8", "replace"), "wait")
        if wait_ms > self._limits.max_request_timeout_ms:
            raise BadRequest(f"wait must be at most {self._limits.max_request_timeout_ms:.0f}ms")
        since = number_of(params, "since", self._store.revision, 0, _MAX_REVISION)
        self._streams.places.check()
        await self._service.require("history", self._limits.request_timeout_ms)
        return await while_connected(request, self._wait(key, since, wait_ms))

    async def _wait(self, key: bytes, since: int, wait_ms: float) -> bool:
        hub: Hub = self._service.hub
        changed_at = self._store.mod_revision(key)
        if changed_at > since:
            return True
        if changed_at and since < self._store.revision:
            since = self._store.revision  # NB: it is as it was at ``since``: no need to look through it all
        bell = Bell()
        watcher = hub.watch_key(key, since, bell.ring)
        try:
            async with asyncio.timeout(wait_ms / 1000):
                while not hub.is_closed:
                    pulled = watcher.pull()
                    if pulled.changes:
                        return True
                    if pulled.more:
                        await asyncio.sleep(0)
                    else:
                        await bell.rung()
                return False
        except TimeoutError:
            return False
        except Compacted:  # nobody knows any more: who asks had better look
            return True
        finally:
            hub.remove(watcher)
