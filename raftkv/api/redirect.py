"""``?redirect=true``: who wants to talk to the leader itself is told where that is, instead of being served
through this node. Any request under ``/v1/`` takes it.
"""

from __future__ import annotations

from aiohttp import web
from yarl import URL

from raftkv.api.answer import Answer
from raftkv.api.params import flag_of, parse_query
from raftkv.errors import NoQuorum
from raftkv.ports import Service

PARAM = "redirect"


def redirected(request: web.BaseRequest, service: Service) -> Answer | web.BaseRequest:
    """307 to the leader's advertised URL; or, where this node leads or it isn't wanted, the request without
    the parameter. Raises ``NoQuorum`` where no leader is known, and ``BadRequest``.
    """
    parts = request.rel_url.raw_query_string.split("&")
    ours = [part for part in parts if part.partition("=")[0] == PARAM]
    others = "&".join(part for part in parts if part not in ours)
    path = request.rel_url.raw_path
    leader = service.leader
    if flag_of(parse_query("&".join(ours), (PARAM,)), PARAM) and leader != service.node_id:
        url = None if leader is None else service.client_url(leader)
        if url is None:
            raise NoQuorum("this node knows of no leader to redirect to", retry_after_ms=1000)
        # NB: without the parameter: should it lead no more, it serves by forwarding.
        target = f"{url.rstrip('/')}{path}{'?' if others else ''}{others}"
        return Answer(
            {"Location": target, "Raftkv-Node": service.node_id, "Raftkv-Leader": str(leader)}, b"", 307
        )
    return request.clone(rel_url=URL.build(path=path, query_string=others, encoded=True))
