"""What a node says of itself and of the cluster: status, members, liveness, readiness."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from raftkv.api.answer import Answer
from raftkv.api.body import json_response, small_body
from raftkv.api.limits import Limits
from raftkv.api.params import flag_of, parse_query, timeout_ms
from raftkv.consensus.types import NodeId
from raftkv.errors import BadRequest, NoQuorum
from raftkv.ports import Service

_READY_TIMEOUT_MS = 1000.0


class ClusterHandlers:
    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def status(self, request: web.BaseRequest) -> Answer:
        parse_query(request.rel_url.raw_query_string, ())
        return json_response(self._service.status())

    async def cluster(self, request: web.BaseRequest) -> Answer:
        """All members as this node sees them: its own state, and what the others last reported of theirs.

        Whoever can't be reached has no role now, whatever it said last.
        """
        parse_query(request.rel_url.raw_query_string, ())
        service = self._service
        own = service.status()
        commit_index = own["commit_index"]
        peers = service.peers()
        voters = own.get("voters", [own["node"], *(peer.node for peer in peers)])
        halves = [half for half in (voters, own.get("outgoing")) if half]
        members: list[dict[str, Any]] = []
        if own["node"] in own.get("members", voters):  # else it waits to be added, or was removed
            members.append(
                {
                    "node": own["node"],
                    "url": own["url"],
                    "peer_address": own["peer_address"],
                    "connected": True,
                    **_summary(own),
                }
            )
        for peer in peers:
            members.append(
                {
                    "node": peer.node,
                    "url": peer.client_url,
                    "peer_address": peer.address,
                    "connected": peer.connected,
                    **_summary(peer.status or {}),
                    **({} if peer.connected else {"role": None}),
                    "reported_ms_ago": None if peer.status_age_ms is None else round(peer.status_age_ms),
                }
            )
            commit_index = max(commit_index, members[-1]["commit_index"] or 0)
        for member in members:
            applied = member["last_applied"]
            member["lag"] = None if applied is None else max(0, commit_index - applied)
            member["votes"] = any(member["node"] in half for half in halves)
        members.sort(key=lambda member: str(member["node"]))
        alive = {member["node"] for member in members if member["connected"]}
        spare = [len(alive.intersection(half)) - (len(half) // 2 + 1) for half in halves]
        return json_response(
            {
                "cluster_id": own["cluster_id"],
                "node": own["node"],
                "leader": own["leader"],
                "leader_url": own["leader_url"],
                "term": own["term"],
                "members": members,
                "quorum": len(voters) // 2 + 1,
                "connected": len(alive),
                "joint": len(halves) > 1,
                "may_lose": max(0, min(spare, default=0)),
                "has_quorum": min(spare, default=-1) >= 0,
            }
        )

    async def transfer(self, request: web.BaseRequest) -> Answer:
        """Hand the lead over to ``{"id": "n2"}``, or with ``{}`` to whoever is fittest."""
        params = parse_query(request.rel_url.raw_query_string, ("timeout",))
        limits = self._limits
        timeout = timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)
        target = _target_of(await small_body(request, timeout))
        leader, term = await self._service.transfer(target, timeout)
        return json_response({"leader": leader, "term": term})

    async def livez(self, request: web.BaseRequest) -> Answer:
        """The process answers. Never depends on a quorum, or an orchestrator would kill what is merely cut
        off.
        """
        return json_response({"status": "ok", "node": self._service.node_id})

    async def readyz(self, request: web.BaseRequest) -> Answer:
        """Whether this node can serve linearizable requests now, and will: it asks a majority. One that was
        told to stop is ready no more, though it still serves.
        """
        params = parse_query(request.rel_url.raw_query_string, ("verbose",))
        verbose = flag_of(params, "verbose")
        service = self._service
        try:
            await service.barrier(_READY_TIMEOUT_MS)
            has_quorum = True
        except NoQuorum:
            has_quorum = False
        ready = has_quorum and not service.stopping
        status = "ready" if ready else "stopping" if service.stopping else "no quorum"
        body: dict[str, Any] = {"status": status, "node": service.node_id}
        if verbose:
            body["checks"] = {
                "quorum": has_quorum,
                "leader": service.leader,
                "links": {peer.node: peer.connected for peer in service.peers()},
            }
        return json_response(body, 200 if ready else 503)


def _target_of(body: bytes) -> NodeId | None:
    """``id`` of a JSON object; None where it has none, or there is no body."""
    try:
        document = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or document.keys() - {"id"}:
        raise BadRequest('the body must be {"id": "<node>"}, or {} for whoever is fittest')
    target = document.get("id")
    if target is not None and not isinstance(target, str):
        raise BadRequest("id must be the id of a node, as text")
    return None if target is None else NodeId(target)


_SUMMARY = {
    "version": str,
    "protocol": int,
    "machine_level": int,
    "role": str,
    "term": int,
    "commit_index": int,
    "last_applied": int,
    "last_index": int,
    "revision": int,
}


def _summary(status: Any) -> dict[str, Any]:
    """What a status says of these; None for what isn't of its type: a peer's is its own word."""
    return {
        name: value if type(value := status.get(name)) is expected else None
        for name, expected in _SUMMARY.items()
    }
