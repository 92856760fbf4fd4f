"""What this node knows of each peer, and the rule of when one counts as lost.

Lost: an *established* link to or from the peer broke. Told once, whatever breaks next, until a link to or
from it is up again: a killed process breaks both directions, and is one loss. It is a hint for elections, no
proof.

Must not know: sockets. Links report to it, it tells whoever holds the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

from raftkv.consensus.types import NodeId
from raftkv.ports import PeerView
from raftkv.wire.reports import Hello

logger = structlog.get_logger(__name__)


class Direction(StrEnum):
    OUT = "out"  # we connected, and send on it
    IN = "in"  # the peer connected, and sends on it


@dataclass(slots=True)
class _Peer:
    address: str
    client_url: str | None = None
    status: Mapping[str, Any] | None = None
    status_at_s: float = 0.0
    up: set[Direction] = field(
        default_factory=set
    )  # only asked "in" and "how many": its order decides nothing
    loss_told: bool = True  # nothing to lose before the first link


class PeerRegister:
    def __init__(
        self,
        addresses: Mapping[NodeId, str],
        *,
        clock_s: Callable[[], float],
        on_peer_lost: Callable[[NodeId], None],
        on_link_change: Callable[[NodeId, str, bool], None] | None,
    ) -> None:
        self._peers = {node: _Peer(addresses[node]) for node in sorted(addresses)}
        self._clock_s = clock_s
        self._on_peer_lost = on_peer_lost
        self._on_link_change = on_link_change
        self._silent = False

    def __contains__(self, node: object) -> bool:
        return node in self._peers

    def address(self, node: NodeId) -> str:
        return self._peers[node].address

    def move(self, node: NodeId, address: str) -> None:
        self._peers[node].address = address

    def link_up(self, direction: Direction, hello: Hello) -> None:
        """A link with the sender of ``hello`` is established."""
        node = hello.node_id
        peer = self._peers[node]
        peer.client_url = hello.client_url
        peer.loss_told = False
        peer.up.add(direction)
        logger.info("peer link up", peer=node, direction=str(direction))
        if self._on_link_change is not None:
            self._on_link_change(node, str(direction), True)

    def link_down(self, node: NodeId, direction: Direction, reason: str) -> None:
        """An established link broke, or was closed."""
        peer = self._peers[node]
        peer.up.discard(direction)
        if self._silent:
            return
        logger.warning("peer link down", peer=node, direction=str(direction), reason=reason)
        if self._on_link_change is not None:
            self._on_link_change(node, str(direction), False)
        if not peer.loss_told:
            peer.loss_told = True
            self._on_peer_lost(node)

    def report(self, node: NodeId, status: Mapping[str, Any]) -> None:
        peer = self._peers[node]
        peer.status = status
        peer.status_at_s = self._clock_s()

    def silence(self) -> None:
        """This node stops: links going down from here on mean nothing."""
        self._silent = True

    def views(self) -> list[PeerView]:
        """Sorted by node id."""
        now_s = self._clock_s()
        return [
            PeerView(
                node=node,
                address=peer.address,
                connected=len(peer.up) == len(Direction),
                client_url=peer.client_url,
                status=peer.status,
                status_age_ms=None if peer.status is None else (now_s - peer.status_at_s) * 1000,
            )
            for node, peer in self._peers.items()
        ]
