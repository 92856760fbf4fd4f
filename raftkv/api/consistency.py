"""How fresh an answer must be, ``?consistency=``, and what it says of itself in its headers.

``linearizable`` and ``lease`` ask the leader; ``stale`` doesn't, unless ``max_staleness`` wants to know more
than this node does. ``min_revision`` goes with all of them. See docs/consistency.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from raftkv.api.answer import Headers, lines_of
from raftkv.api.limits import Limits
from raftkv.api.params import choice_of, duration_of, number_of, timeout_ms
from raftkv.errors import BadRequest, NoQuorum, TooStale
from raftkv.ports import Service

CONSISTENCY_PARAMS = ("timeout", "consistency", "max_staleness", "min_revision")

_LEVELS = ("linearizable", "lease", "stale")
_MAX_STALENESS_MS = 24 * 3_600_000.0
_MAX_REVISION = 10**18 - 1


class Freshness(NamedTuple):
    level: str
    staleness_ms: float | None  # how old the answer may be; None: it isn't

    def note(self, headers: Headers) -> None:
        headers["Raftkv-Consistency"] = self.level
        if self.staleness_ms is not None:
            headers["Raftkv-Staleness-Ms"] = str(round(self.staleness_ms))

    def lines(self) -> str:
        """What ``note`` adds, as it is sent."""
        if self.staleness_ms is None:
            return f"Raftkv-Consistency: {self.level}\r\n"
        return f"Raftkv-Consistency: {self.level}\r\nRaftkv-Staleness-Ms: {round(self.staleness_ms)}\r\n"


LINEARIZABLE = Freshness("linearizable", None)


async def await_consistency(service: Service, limits: Limits, params: Mapping[str, bytes]) -> Freshness:
    """Wait until this node may answer as asked. Raises as ``Service.barrier`` and ``Service.reached`` do,
    ``NoQuorum``, and ``TooStale``.
    """
    if not params:  # the hot path
        await service.barrier(timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms))
        return LINEARIZABLE
    level = choice_of(params, "consistency", _LEVELS)
    timeout = timeout_ms(params, limits.request_timeout_ms, limits.max_request_timeout_ms)
    oldest_ms = duration_of(params, "max_staleness", _MAX_STALENESS_MS)
    revision = number_of(params, "min_revision", 0, 0, _MAX_REVISION)
    if level == "stale":
        timeout = await _await_revision(service, revision, timeout)
        return Freshness(level, await _staleness(service, limits, oldest_ms, timeout))
    if oldest_ms is not None:
        raise BadRequest("max_staleness goes with consistency=stale: the other levels aren't stale")
    if revision:
        began_s = asyncio.get_running_loop().time()
        await service.barrier(timeout, by_lease=level == "lease")
        timeout -= (asyncio.get_running_loop().time() - began_s) * 1000
        await _await_revision(service, revision, timeout)
    elif level == "lease":
        await service.barrier(timeout, by_lease=True)
    else:
        await service.barrier(timeout)
    return Freshness(level, None)


async def _await_revision(service: Service, revision: int, left_ms: float) -> float:
    """Wait until this node has applied ``revision``; what is left of ``left_ms`` then."""
    if not revision:
        return left_ms
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await service.reached(revision, max(0.0, left_ms))
    return max(0.0, left_ms - (loop.time() - began_s) * 1000)


async def _staleness(service: Service, limits: Limits, oldest_ms: float | None, left_ms: float) -> float:
    """How old this node's state may be; with ``oldest_ms`` no older than that when it was asked for."""
    if oldest_ms is None:
        staleness_ms = service.staleness_ms()
        if staleness_ms is None:
            raise NoQuorum(
                "this node has just started and has heard of no leader: it can't tell what is decided",
                retry_after_ms=1000,
            )
        return staleness_ms
    age_ms = service.vouched_age_ms()
    if age_ms is None or age_ms > oldest_ms:
        # One question a max_staleness at most: its answer vouches for all the reads of that time.
        try:
            await service.barrier(min(left_ms, limits.max_refresh_ms))
        except NoQuorum as error:
            age = "is of unknown age" if age_ms is None else f"may be {age_ms:.0f} ms old"
            raise TooStale(
                f"this node's state {age}, the request wants at most {oldest_ms:.0f} ms, and no leader "
                "confirmed a newer one",
                retry_after_ms=1000,
                extra={} if age_ms is None else {"staleness_ms": round(age_ms)},
            ) from error
        age_ms = service.vouched_age_ms()
    return age_ms or 0.0


def common_headers(service: Service, revision: int, content_type: str) -> Headers:
    headers = {
        "Content-Type": content_type,
        "Raftkv-Revision": str(revision),
        "Raftkv-Node": service.node_id,
    }
    leader = service.leader
    if leader is not None:
        headers["Raftkv-Leader"] = leader
    return headers


def common_lines(service: Service, revision: int) -> str:
    """``common_headers`` as they are sent, without the type: for the hot path."""
    return f"Raftkv-Revision: {revision}\r\n{_node_lines(service.node_id, service.leader)}"


@lru_cache(maxsize=64)
def type_line(content_type: str) -> str:
    """Raises ValueError where it would end its line."""
    return lines_of({"Content-Type": content_type})


@lru_cache(maxsize=16)
def _node_lines(node: str, leader: str | None) -> str:
    return lines_of({"Raftkv-Node": node} | ({} if leader is None else {"Raftkv-Leader": leader}))
