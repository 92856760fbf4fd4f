"""What follows for a node's process from who the members are: its links, where it is listed, and its end when
it is removed.

Rules:
- Links follow the membership in force, committed or not, as the core's messages do.
- A node that is listed elsewhere than where it says it is asks the leader to have that changed.
- One that was removed, and has applied that, takes no requests any more, and ends soon after. NB: not at
  once: one that catches up may come by its removal long ago, and by its return later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import EntryKind, Index, Membership, Move, NodeId
from raftkv.errors import RaftkvError
from raftkv.ports import PeerView
from raftkv.replica import Replica
from raftkv.server.driver import Driver
from raftkv.storage.charter import Charter
from raftkv.transport.network import PeerNetwork

logger = structlog.get_logger(__name__)

_REMOVED_S = 1.0  # without anything new: then it isn't catching up
_MOVE_TIMEOUT_MS = 5_000.0
_MOVE_PAUSE_S = 1.0
_HEALTHY_MS = 2_000.0  # the age of a report that is sent four times a second


def addresses(membership: Membership, charter: Charter) -> dict[NodeId, str]:
    """Where to find each member; for a node that knows no members, where to find those it was told of."""
    if not membership.members:
        return dict(charter.contacts)
    listed = {node: membership.address(node) or charter.founders.get(node) for node in membership.members}
    return {node: address for node, address in listed.items() if address}


class Members:
    def __init__(
        self,
        *,
        replica: Replica,
        driver: Driver,
        network: PeerNetwork,
        charter: Charter,
        peer_address: str,
        on_removed: Callable[[], None],
    ) -> None:
        """``peer_address``: where this node says it is, "" where it doesn't. ``on_removed`` is called once,
        when this node was removed and is to end.
        """
        self._replica = replica
        self._driver = driver
        self._network = network
        self._charter = charter
        self._peer_address = peer_address
        self._on_removed = on_removed
        self._was_member = _ever_member(replica.node, charter)
        self._removed_at: tuple[Index, float] | None = None  # what was applied, and since when
        self._ended = False
        self._moving: asyncio.Task[None] | None = None
        self._move_failed = ""

    @property
    def _node(self) -> Node:
        return self._replica.node

    @property
    def is_member(self) -> bool:
        return self._node.node_id in self._node.membership.members

    def start(self) -> None:
        self._link()
        if not self.is_member and not self._was_member:
            me = self._node.node_id
            logger.info("waiting to be added", run=f"raftkv member add {me} {self._peer_address}")

    async def stop(self) -> None:
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)

    def turned(self, ready: Ready) -> None:
        """A turn was carried out."""
        membership = ready.membership
        if membership is None:
            return
        self._was_member = self._was_member or self.is_member
        logger.info(
            "members",
            voters=list(membership.voters),
            outgoing=list(membership.outgoing),
            learners=[each.node for each in membership.learners],
            index=self._node.membership_since,
        )
        self._link()

    def look(self) -> None:
        """Several times a second: does anything follow from how things are?"""
        self._maybe_end()
        self._maybe_move()

    # -- what follows --------------------------------------------------------------------------------------

    def _link(self) -> None:
        listed = addresses(self._node.membership, self._charter)
        own_address = listed.pop(self._node.node_id, "")
        self._network.set_peers(listed, own_address)

    def _maybe_end(self) -> None:
        node, applied = self._node, self._replica.last_applied
        is_removed = self._was_member and not self.is_member and applied >= node.membership_since
        if not is_removed or self._ended:
            if self._removed_at is not None and not self._ended:
                self._removed_at = None
                self._driver.refuse(None)
            return
        now_s = asyncio.get_running_loop().time()
        if self._removed_at is None or self._removed_at[0] != applied:
            # Who leads takes nothing from this node any more.
            self._driver.refuse("this node was removed from the cluster; ask another")
            self._removed_at = (applied, now_s)
        elif now_s - self._removed_at[1] >= _REMOVED_S:
            self._ended = True
            logger.warning(
                "this node was removed from the cluster: it stops; to come back it needs a new id and an "
                "empty data directory",
                members=list(node.membership.members),
                index=node.membership_since,
            )
            self._on_removed()

    def _maybe_move(self) -> None:
        node = self._node
        listed = node.membership.address(node.node_id)
        if listed is None or not self._peer_address or listed == self._peer_address:
            return
        if node.leader is not None and (self._moving is None or self._moving.done()):
            self._moving = asyncio.create_task(self._move(listed))

    async def _move(self, listed: str) -> None:
        node_id = self._node.node_id
        try:
            change = Move(node_id, self._peer_address)
            await self._driver.change_members(change, force=False, timeout_ms=_MOVE_TIMEOUT_MS)
        except RaftkvError as error:
            if str(error) != self._move_failed:
                self._move_failed = str(error)
                logger.warning("still listed at another address", listed=listed, reason=str(error))
            await asyncio.sleep(_MOVE_PAUSE_S)
        else:
            self._move_failed = ""
            logger.info("this node's address was changed", was=listed, now=self._peer_address)

    # -- what there is to tell -----------------------------------------------------------------------------

    def view(self, own: Mapping[str, Any], peers: list[PeerView]) -> dict[str, Any]:
        """All members as this node sees them (JSON types only). ``own``: this node's own status report."""
        node = self._node
        membership = node.membership
        known = {peer.node: peer for peer in peers}
        progress = node.role.progress if isinstance(node.role, Leader) else {}
        now_ms = asyncio.get_running_loop().time() * 1000
        rows = []
        for member in membership.members:
            peer = known.get(member)
            is_self = member == node.node_id
            report = own if is_self else (peer.status if peer is not None and peer.status else {})
            match = progress[member].match_index if member in progress else report.get("last_index")
            match = match if type(match) is int else None
            is_heard = peer is not None and peer.connected and (peer.status_age_ms or 0.0) <= _HEALTHY_MS
            if member in progress:  # as the leader judges changes of members, and by nothing else
                silent_ms = now_ms - progress[member].heard_ms
                is_heard = progress[member].answered and silent_ms <= node.timing.election_timeout_min_ms
            rows.append(
                {
                    "id": member,
                    "address": membership.address(member) or (peer.address if peer else self._peer_address),
                    "role": _role(membership, member, node.leader),
                    "match_index": match,
                    "lag": None if match is None else max(0, node.commit_index - match),
                    "healthy": is_self or is_heard,
                    **_promotion(membership, member),
                }
            )
        return {
            "members": rows,
            "leader": node.leader,
            "joint": membership.is_joint,
            "index": node.membership_since,
            "committed": node.membership_since <= node.commit_index,
        }


def _ever_member(node: Node, charter: Charter) -> bool:
    """Whether this node was a member at any time that can be known: of the founding, or within its log."""
    me = node.node_id
    if me in charter.founders or me in node.membership.members:
        return True
    log = node.log
    entries = log.slice(Index(log.boundary.index + 1), 1 << 62)
    changes = (entry for entry in entries if entry.kind is EntryKind.CONFIG)
    return any(me in decode_membership(entry.data).members for entry in changes)


def _role(membership: Membership, member: NodeId, leader: NodeId | None) -> str:
    if member == leader:
        return "leader"
    if membership.learner(member) is not None:
        return "learner"
    return "voter" if member in membership.voters else "leaving"


def _promotion(membership: Membership, member: NodeId) -> dict[str, Any]:
    learner = membership.learner(member)
    return {} if learner is None else {"promote": learner.promote, "replaces": learner.replaces}
