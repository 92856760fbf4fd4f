"""How fresh an answer must be, ``?consistency=``, and what it says of itself in its headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multidict import CIMultiDict

from raftkv.api.limits import Limits
from raftkv.api.params import choice_of, timeout_ms
from raftkv.errors import NoQuorum
from raftkv.ports import Service

CONSISTENCY_PARAMS = ("timeout", "consistency")

_LEVELS = ("linearizable", "stale")


@dataclass(frozen=True, slots=True)
class Freshness:
    level: str
    staleness_ms: float | None  # how old the answer may be; None: it isn't

    def note(self, headers: CIMultiDict[str]) -> None:
        headers["Raftkv-Consistency"] = self.level
        if self.staleness_ms is not None:
            headers["Raftkv-Staleness-Ms"] = str(round(self.staleness_ms))


async def await_consistency(service: Service, limits: Limits, params: Mapping[str, bytes]) -> Freshness:
    """Wait until this node may answer as asked. Raises as ``Service.barrier`` does, and ``NoQuorum``."""
    level = choice_of(params, "consistency", _LEVELS) if params else "linearizable"
    timeout = timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)
    if level == "linearizable":
        await service.barrier(timeout)
        return Freshness(level, None)
    staleness_ms = service.staleness_ms()
    if staleness_ms is None:
        raise NoQuorum(
            "this node has just started and has heard of no leader: it can't tell what is decided",
            retry_after_ms=1000,
        )
    return Freshness(level, staleness_ms)


def common_headers(service: Service, revision: int, content_type: str) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    headers["Content-Type"] = content_type
    headers["Raftkv-Revision"] = str(revision)
    headers["Raftkv-Node"] = service.node_id
    leader = service.leader
    if leader is not None:
        headers["Raftkv-Leader"] = leader
    return headers
