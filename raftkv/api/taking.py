"""Snapshots on request: what this node is to write to its own disk, now."""

from __future__ import annotations

from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.body import json_response
from raftkv.api.limits import Limits
from raftkv.api.params import parse_query, timeout_ms
from raftkv.ports import Service


class TakingHandlers:
    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def take(self, request: web.BaseRequest) -> Answer:
        """Take a snapshot on this node, or wait for the one that is being taken; answered once it is
        durable. A large one lasts: without a ``?timeout=`` it may take as long as any request.
        """
        params = parse_query(request.rel_url.raw_query_string, ("timeout",))
        longest_ms = self._limits.max_request_timeout_ms
        taken = await self._service.take_snapshot(timeout_ms(params, longest_ms, longest_ms))
        return json_response(taken)
