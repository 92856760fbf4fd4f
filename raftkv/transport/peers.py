"""What this node knows of each peer, and the rule of when one counts as lost.

Lost: an *established* link to or from the peer broke. Told once, whatever breaks next, until a link to or
from it is up again: a killed process breaks both directions, and is one loss. It is a hint for elections, no
proof.

A *guest* is a node of our cluster that isn't among our peers but connected to us: a leader that our own list
doesn't have yet, one that waits to be added, one that was removed and doesn't know it yet (thesis 4.1: a
server hears whoever leads, whatever its own configuration says). It stays for as long as its link to us does,
and is answered where it says that it listens. There are at most ``MAX_GUESTS``.

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
from raftkv.transport.hello import LastRun
from raftkv.wire.reports import Hello

logger = structlog.get_logger(__name__)

MAX_GUESTS = 8


class Direction(StrEnum):
    OUT = "out"  # we connected, and send on it
    IN = "in"  # the peer connected, and sends on it


@dataclass(slots=True)
class _Peer:
    address: str  # where the members' list has it; a guest's: where it says it is
    is_guest: bool = False
    was_peer: bool = True
    run: LastRun = field(default_factory=LastRun)
    found_at: str = ""  # where the last link to it was up
    moved_to: str = ""  # where it says it is, if the members' list is wrong about that
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
        known_incarnation: Callable[[NodeId], int] = lambda _: 0,
        hints: Mapping[NodeId, str] | None = None,
    ) -> None:
        """``known_incarnation``: the latest of a node that is durably known here, 0 for none. ``hints``:
        where else a node may be found that isn't where the members' list has it.
        """
        self._peers = {node: _Peer(addresses[node]) for node in sorted(addresses)}
        self._clock_s = clock_s
        self._on_peer_lost = on_peer_lost
        self._on_link_change = on_link_change
        self._known_incarnation = known_incarnation
        self._hints = dict(hints or {})
        self.own_address = ""  # where the members' list has this node; "" where it doesn't
        self._last_runs: dict[NodeId, LastRun] = {}  # of those that were peers
        self._silent = False

    def __contains__(self, node: object) -> bool:
        return node in self._peers

    # -- who is a peer -------------------------------------------------------------------------------------

    def is_guest(self, node: NodeId) -> bool:
        return node in self._peers and self._peers[node].is_guest

    def has_room_for(self, hello: Hello) -> bool:
        """Whether its sender may link with us: a peer may, and a stranger where there is room, if it says
        where it can be answered.
        """
        return hello.node_id in self._peers or (bool(hello.peer_address) and self._guests < MAX_GUESTS)

    def set_peers(self, addresses: Mapping[NodeId, str]) -> list[NodeId]:
        """The peers from now on. Returns those whose address has changed.

        Who is no peer any more but still has a link to us is our guest, if there is room; whoever is neither
        is to be forgotten (``strangers``).
        """
        moved = []
        for node, peer in self._peers.items():
            peer.is_guest = node not in addresses
        for node, address in addresses.items():
            peer = self._peers.setdefault(node, _Peer(address, run=self._last_runs.get(node, LastRun())))
            peer.was_peer = True
            if peer.address != address:
                peer.address = address
                moved.append(node)
        self._peers = dict(sorted(self._peers.items()))
        return sorted(moved)

    def strangers(self) -> list[NodeId]:
        """Who isn't a peer, and isn't a guest: has no link to us, or there are too many."""
        guests = [node for node, peer in self._peers.items() if peer.is_guest]
        staying = [node for node in guests if Direction.IN in self._peers[node].up][:MAX_GUESTS]
        return [node for node in guests if node not in staying]

    def forget(self, node: NodeId) -> None:
        """``node`` is no peer and no guest any more; its links are given up."""
        peer = self._peers.pop(node)
        # NB: a stranger's run is not kept: its ids are its own choice, and would be without bound.
        if peer.was_peer:
            self._last_runs[node] = peer.run
        for direction in sorted(peer.up):
            self._tell(node, direction, up=False)

    def address(self, node: NodeId) -> str:
        """Where ``node`` was found last, or else where the members' list has it."""
        peer = self._peers[node]
        return peer.found_at if peer.found_at in self.addresses(node) else peer.address

    def found(self, node: NodeId, address: str) -> None:
        """A link to ``node`` is up at ``address``."""
        self._peers[node].found_at = address

    def move(self, node: NodeId, address: str) -> None:
        self._peers[node].address = address

    def has_moved(self, address: str) -> bool:
        """Whether this node, which listens at ``address``, is listed elsewhere."""
        return bool(self.own_address and address) and self.own_address != address

    def addresses(self, node: NodeId) -> tuple[str, ...]:
        """Where to look for ``node``, first where the members' list has it."""
        peer = self._peers[node]
        found = (peer.address, peer.moved_to, self._hints.get(node, ""))
        return tuple(dict.fromkeys(filter(None, found)))

    def last_run(self, node: NodeId) -> LastRun:
        """The latest run of ``node`` that is known here."""
        peer = self._peers.get(node)
        heard = self._last_runs.get(node, LastRun()) if peer is None else peer.run
        return LastRun(max(heard.incarnation, self._known_incarnation(node)), heard.directory)

    # -- what links report ---------------------------------------------------------------------------------

    def link_up(self, direction: Direction, hello: Hello) -> None:
        """A link with the sender of ``hello`` is established. A stranger becomes a guest by it."""
        node = hello.node_id
        if node not in self._peers:
            run = self._last_runs.get(node)
            self._peers[node] = _Peer(
                hello.peer_address, is_guest=True, was_peer=run is not None, run=run or LastRun()
            )
            self._peers = dict(sorted(self._peers.items()))
            logger.info("a node of this cluster that is no member", peer=node, address=hello.peer_address)
        peer = self._peers[node]
        peer.client_url = hello.client_url
        if peer.is_guest and hello.peer_address:
            peer.address = hello.peer_address
        peer.moved_to = hello.peer_address if hello.moved else ""
        peer.loss_told = False
        peer.up.add(direction)
        peer.run = LastRun(
            max(peer.run.incarnation, hello.incarnation), hello.directory or peer.run.directory
        )
        logger.info("peer link up", peer=node, direction=str(direction))
        self._tell(node, direction, up=True)

    def link_down(self, node: NodeId, direction: Direction, reason: str) -> None:
        """An established link broke, or was closed."""
        peer = self._peers.get(node)
        if peer is None:  # forgotten before
            return
        peer.up.discard(direction)
        if self._silent:
            return
        logger.warning("peer link down", peer=node, direction=str(direction), reason=reason)
        self._tell(node, direction, up=False)
        if not peer.loss_told:
            peer.loss_told = True
            self._on_peer_lost(node)

    def report(self, node: NodeId, status: Mapping[str, Any]) -> None:
        peer = self._peers.get(node)
        if peer is not None:
            peer.status = status
            peer.status_at_s = self._clock_s()

    def silence(self) -> None:
        """This node stops: links going down from here on mean nothing."""
        self._silent = True

    def client_url(self, node: NodeId) -> str | None:
        """What ``node`` advertises, be it a peer or a guest; None until it was heard of."""
        return self._peers[node].client_url if node in self._peers else None

    def views(self) -> list[PeerView]:
        """The peers, sorted by node id; no guests."""
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
            if not peer.is_guest
        ]

    @property
    def _guests(self) -> int:
        return sum(peer.is_guest for peer in self._peers.values())

    def _tell(self, node: NodeId, direction: Direction, *, up: bool) -> None:
        if self._on_link_change is not None:
            self._on_link_change(node, str(direction), up)
