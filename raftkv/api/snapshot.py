"""``GET /v1/snapshot``: a backup of this node's machine, streamed while the node goes on.

Rules:

- What is sent is the machine at one moment, after the barrier; it ends with an END record, so that whoever
  gets less knows it. An answer that can't be completed is cut off: there is no other way to say so any more.
- A piece at a time, each in a pass of the event loop of its own: no piece takes longer than about a
  millisecond, and everything else gets its turns between two.
- What is kept for a backup is bounded: by how many there may be, by how long a reader may take nothing, and
  by the bytes of old rows that wait for it.
"""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.consistency import CONSISTENCY_PARAMS, await_consistency, common_headers
from raftkv.api.limits import Limits
from raftkv.api.params import parse_query
from raftkv.errors import TooManyRequests
from raftkv.ports import Backup, Service

logger = structlog.get_logger(__name__)

_CONTENT_TYPE = "application/vnd.raftkv.snapshot"
_RETRY_AFTER_MS = 1000


class SnapshotHandlers:
    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._under_way = 0

    async def download(self, request: web.BaseRequest) -> web.StreamResponse:
        params = parse_query(request.rel_url.raw_query_string, CONSISTENCY_PARAMS)
        if self._under_way >= self._limits.max_backups:
            raise TooManyRequests(
                f"{self._under_way} backups of this node are under way; wait, or ask another",
                retry_after_ms=_RETRY_AFTER_MS,
            )
        self._under_way += 1
        try:
            freshness = await await_consistency(self._service, self._limits, params)
            backup = self._service.backup()
            try:
                headers = common_headers(self._service, backup.revision, _CONTENT_TYPE)
                headers["Content-Disposition"] = f'attachment; filename="{backup.name}"'
                headers["Raftkv-Keys"] = str(backup.keys)
                headers["Cache-Control"] = "no-store"
                freshness.note(headers)
                if request.method == "HEAD":
                    return Answer(headers)
                response = web.StreamResponse(headers=headers)
                await response.prepare(request)
                if why := await self._send(response, backup):
                    logger.warning("a backup was cut off", reason=why)
                    if request.transport is not None:
                        request.transport.abort()
                    raise ConnectionResetError(why)
                return response
            finally:
                backup.close()
        finally:
            self._under_way -= 1

    async def _send(self, response: web.StreamResponse, backup: Backup) -> str:
        """Why the rest can't be sent; "" when all is. Raises ConnectionError where the reader is gone."""
        limits = self._limits
        try:
            for piece in backup:
                if piece:
                    async with asyncio.timeout(limits.max_backup_stall_ms / 1000):
                        await response.write(piece)
                if backup.kept_bytes > limits.max_backup_kept_bytes:
                    return f"{backup.kept_bytes} bytes of old rows wait for it: its reader is too slow"
                await backup.rest()
        except TimeoutError:
            return f"its reader took nothing for {limits.max_backup_stall_ms:.0f} ms"
        except ConnectionError:
            raise
        except Exception:
            logger.exception("a backup failed")  # too late for a problem document
            return "the server made a mistake"
        return ""
