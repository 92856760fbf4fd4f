"""The members over REST: list, add, promote, remove, move."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import orjson
from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.body import json_response, small_body
from raftkv.api.limits import Limits
from raftkv.api.params import flag_of, parse_query, timeout_ms
from raftkv.config import Address
from raftkv.consensus.types import AddLearner, Change, Move, NodeId, Promote, Remove
from raftkv.errors import BadRequest, MethodNotAllowed, NotFound, StartError
from raftkv.ports import Service

PATH = "/v1/cluster/members"
_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Handler = Callable[[web.BaseRequest, NodeId], Awaitable[Answer]]


class MembersHandlers:
    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._one: dict[str, Handler] = {"DELETE": self.remove, "PUT": self.move}
        self._promotion: dict[str, Handler] = {"POST": self.promote}
        self.routes = {"/{id}": self._one, "/{id}/promote": self._promotion}

    async def list(self, request: web.BaseRequest) -> Answer:
        self._timeout(request)  # as any other request may say it; nothing is waited for
        return json_response(self._service.members())

    async def add(self, request: web.BaseRequest) -> Answer:
        """``{"id", "address", "promote": true, "replaces": null, "force": false}``. The new member learns; it
        is promoted by the leader when it has caught up, which this doesn't wait for.
        """
        timeout = self._timeout(request)
        body = _document(
            await small_body(request, timeout), ("id", "address"), ("promote", "replaces", "force")
        )
        replaces = body.get("replaces")
        change = AddLearner(
            node_id(body["id"]),
            _address(body["address"]),
            _flag(body, "promote", default=True),
            None if replaces is None else node_id(replaces),
        )
        return await self._change(change, timeout, force=_flag(body, "force", default=False))

    async def one(self, request: web.BaseRequest, rest: str) -> Answer:
        """``rest``: what follows on ``/v1/cluster/members/``, percent-encoded."""
        name, slash, action = rest.partition("/")
        if slash and action != "promote":
            raise NotFound(f"there is nothing at {PATH}/{rest}")
        methods = self._promotion if slash else self._one
        handler = methods.get(request.method)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            raise MethodNotAllowed(
                f"{request.method} isn't possible here; use {allowed}", extra={"allow": allowed}
            )
        return await handler(request, node_id(unquote(name)))

    async def promote(self, request: web.BaseRequest, node: NodeId) -> Answer:
        return await self._change(Promote(node), self._timeout(request, "force"), force=_forced(request))

    async def remove(self, request: web.BaseRequest, node: NodeId) -> Answer:
        return await self._change(Remove(node), self._timeout(request, "force"), force=_forced(request))

    async def move(self, request: web.BaseRequest, node: NodeId) -> Answer:
        timeout = self._timeout(request)
        body = _document(await small_body(request, timeout), ("address",), ())
        return await self._change(Move(node, _address(body["address"])), timeout, force=False)

    async def _change(self, change: Change, within_ms: float, *, force: bool) -> Answer:
        index = await self._service.change_members(change, force=force, timeout_ms=within_ms)
        return json_response({"index": index, **self._service.members()})

    def _timeout(self, request: web.BaseRequest, *others: str) -> float:
        params = parse_query(request.rel_url.raw_query_string, ("timeout", *others))
        return timeout_ms(params, self._limits.request_timeout_ms, self._limits.max_request_timeout_ms)


def node_id(value: Any) -> NodeId:
    """Raises ``BadRequest``."""
    if not isinstance(value, str) or _NODE_ID.fullmatch(value) is None:
        raise BadRequest("the id of a node must be text, 1-64 of A-Z a-z 0-9 . _ -")
    return NodeId(value)


def _address(value: Any) -> str:
    try:
        return str(Address.parse(value if isinstance(value, str) else "", "address"))
    except StartError:
        raise BadRequest("address must be HOST:PORT, where the other nodes find it") from None


def _forced(request: web.BaseRequest) -> bool:
    return flag_of(parse_query(request.rel_url.raw_query_string, ("timeout", "force")), "force")


def _flag(body: dict[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def _document(body: bytes, needed: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if (
        not isinstance(document, dict)
        or document.keys() - {*needed, *optional}
        or set(needed) - document.keys()
    ):
        names = ", ".join([*needed, *(f"{name} (or not)" for name in optional)])
        raise BadRequest(f"the body must be a JSON object with {names}")
    return document
