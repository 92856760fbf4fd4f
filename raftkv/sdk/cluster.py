"""The cluster itself: its members and who leads, what a node says of itself, snapshots and backups."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast
from urllib.parse import quote

import orjson

from raftkv.errors import NoQuorum, RaftkvError
from raftkv.sdk.calling import JSON, Ask, Calls, Query

_MEMBERS = "/v1/cluster/members"
_CHUNK_BYTES = 64 << 10
_STALL_S = 30.0


class NodeStatus(TypedDict, total=False):
    """What a node says of itself; these and more."""

    node: str
    version: str
    cluster_id: str
    url: str
    role: str  # leader, follower, candidate, pre_candidate, learner
    term: int
    leader: str | None
    leader_url: str | None
    commit_index: int
    last_applied: int
    last_index: int
    revision: int
    keys: int
    staleness_ms: int | None  # how old its state may be; None: it can't know
    members: list[str]
    voters: list[str]
    learners: list[str]


class ClusterView(TypedDict, total=False):
    """The cluster as one node sees it; these and more."""

    cluster_id: str
    node: str  # whose view it is
    leader: str | None
    leader_url: str | None
    term: int
    members: list[dict[str, Any]]  # each with node, url, connected, role, last_applied, lag, votes, ...
    quorum: int
    connected: int
    may_lose: int  # how many more may die, and the rest still decides
    has_quorum: bool


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    address: str  # of its peer port
    role: str  # leader, voter, learner, leaving
    match_index: int | None  # how far its log is known to be the leader's
    lag: int | None  # how many committed entries it lacks
    healthy: bool
    promote: bool = False  # of a learner: it votes as soon as it has caught up
    replaces: str | None = None  # of a learner: who leaves then


@dataclass(frozen=True, slots=True)
class Members:
    members: tuple[Member, ...]
    leader: str | None
    joint: bool  # a change of voters is under way
    committed: bool

    def __getitem__(self, node: str) -> Member:
        """Raises ``KeyError``."""
        return {each.id: each for each in self.members}[node]


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """``index`` and ``term`` of the last entry in it."""

    index: int
    term: int
    size_bytes: int


class ClusterCalls(Calls):
    async def status(self, *, timeout: float | None = None) -> NodeStatus:
        """Of the node that answers, as ``GET /v1/status`` gives it."""
        reply = await self._caller.call(Ask("GET", "/v1/status", timed=False), timeout)
        return cast(NodeStatus, reply.json())

    async def cluster(self, *, timeout: float | None = None) -> ClusterView:
        """All members as one node sees them, as ``GET /v1/cluster`` gives it."""
        reply = await self._caller.call(Ask("GET", "/v1/cluster", timed=False), timeout)
        return cast(ClusterView, reply.json())

    async def ready(self, *, timeout: float | None = None) -> str:
        """A node that can serve now, for a majority answers it. Raises ``NoQuorum`` where there is none."""
        try:
            reply = await self._caller.call(Ask("GET", "/readyz", timed=False), timeout)
        except RaftkvError as error:
            if error.status != NoQuorum.status:
                raise
            raise NoQuorum("no node that answers can serve now") from error
        return str(reply.json()["node"])

    async def transfer(self, to: str | None = None, *, timeout: float | None = None) -> str:
        """Hand the lead to the node ``to``, or to who is fittest. Returns who leads then."""
        body = orjson.dumps({} if to is None else {"id": to})
        ask = Ask("POST", "/v1/cluster/leader", body=body, repeatable=False)
        return str((await self._caller.call(ask, timeout)).json()["leader"])

    # -- members -------------------------------------------------------------------------------------------

    async def members(self, *, timeout: float | None = None) -> Members:
        """As the node that answers sees them."""
        return _read_members(await self._look(_MEMBERS, timeout=timeout))

    async def add_member(
        self,
        node: str,
        address: str,
        *,
        promote: bool = True,
        force: bool = False,
        timeout: float | None = None,
    ) -> Members:
        """Add ``node``, whose peer port is found at ``address``. It learns first, and votes by itself once it
        has caught up, unless ``promote`` is False. Raises ``ChangeRefused``, as all changes of members do:
        where too few voters would be heard from, unless ``force`` is True.
        """
        document = {"id": node, "address": address, "promote": promote, "force": force}
        return await self._change("POST", _MEMBERS, document, timeout=timeout)

    async def replace_member(
        self, node: str, new: str, address: str, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Add ``new``, found at ``address``; once it has caught up it votes, and ``node`` is removed by the
        same change.
        """
        document = {"id": new, "address": address, "promote": True, "replaces": node, "force": force}
        return await self._change("POST", _MEMBERS, document, timeout=timeout)

    async def promote_member(
        self, node: str, *, force: bool = False, timeout: float | None = None
    ) -> Members:
        """Let ``node``, a learner that has caught up, vote."""
        path = f"{_member_path(node)}/promote"
        return await self._change("POST", path, force=force, timeout=timeout)

    async def remove_member(self, node: str, *, force: bool = False, timeout: float | None = None) -> Members:
        """Its process ends by itself when it has heard of it."""
        return await self._change("DELETE", _member_path(node), force=force, timeout=timeout)

    async def move_member(self, node: str, address: str, *, timeout: float | None = None) -> Members:
        """Its peer port is found at ``address`` from now on."""
        return await self._change("PUT", _member_path(node), {"address": address}, timeout=timeout)

    async def _change(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        force: bool = False,
        timeout: float | None,
    ) -> Members:
        # NB: without an idempotency key: a change that is done already is answered as done.
        query: Query = (("force", "true"),) if force else ()
        body = None if document is None else orjson.dumps(document)
        ask = Ask(method, path, query, {} if document is None else JSON, body)
        return _read_members((await self._caller.call(ask, timeout)).json())

    # -- snapshots -----------------------------------------------------------------------------------------

    async def take_snapshot(self, *, timeout: float | None = None) -> SnapshotTaken:
        """Have the node that is asked write one to its disk now. Raises ``SnapshotFailed``, or ``TimedOut``
        where it isn't durable in time, and goes on.
        """
        document = (await self._caller.call(Ask("POST", "/v1/snapshot"), timeout)).json()
        return SnapshotTaken(int(document["index"]), int(document["term"]), int(document["bytes"]))

    async def backup(self, *, timeout: float | None = None) -> AsyncGenerator[bytes]:
        """The bytes of a backup, for ``raftkv restore``, piece by piece. Raises ``Unreachable`` if it breaks
        off: what came is no backup then.
        """
        head_s = self._caller.timeout_s if timeout is None else timeout
        endpoint = self._caller.endpoints.current
        ask = Ask("GET", "/v1/snapshot")
        async with self._caller.stream(endpoint, ask, head_s=head_s, stall_s=_STALL_S) as answer:
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                yield chunk


def _member_path(node: str) -> str:
    return f"{_MEMBERS}/{quote(node, safe='')}"


def _read_members(document: Mapping[str, Any]) -> Members:
    names = Member.__dataclass_fields__
    return Members(
        tuple(
            Member(**{name: value for name, value in each.items() if name in names})
            for each in document["members"]
        ),
        document.get("leader"),
        bool(document.get("joint")),
        bool(document.get("committed")),
    )
