"""The node's links to all its peers, as one ``ports.Transport``.

Lossy by contract: a peer that is away or doesn't keep up misses messages, and Raft resends what matters.
Everything runs on the event loop that ``start`` was called on; no method may be called from another thread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from raftkv.consensus.messages import Envelope
from raftkv.consensus.types import NodeId
from raftkv.ports import PeerView
from raftkv.transport.hello import Identity
from raftkv.transport.limits import LinkLimits
from raftkv.transport.link import OutgoingLink
from raftkv.transport.listener import Listener
from raftkv.transport.peers import PeerRegister
from raftkv.transport.snapshots import Offered, SnapshotInlet, SnapshotOutlet
from raftkv.wire.reports import encode_status
from raftkv.wire.snapshots import Offer


class PeerNetwork:
    """Listens for the peers, and keeps one link to each up."""

    def __init__(
        self,
        *,
        identity: Identity,
        listen: tuple[str, int],
        peers: Mapping[NodeId, str],
        on_envelopes: Callable[[Sequence[Envelope]], None],
        on_peer_lost: Callable[[NodeId], None],
        on_link_change: Callable[[NodeId, str, bool], None] | None = None,
        on_disowned: Callable[[NodeId, str], None] = lambda peer, reason: None,
        known_incarnation: Callable[[NodeId], int] = lambda node: 0,
        hints: Mapping[NodeId, str] | None = None,
        on_offer: Offered | None = None,
        limits: LinkLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """``peers``: the other nodes and the ``host:port`` of each one's peer port.

        The callbacks are called on the event loop and must neither block nor raise: ``on_envelopes`` with
        each frame's envelopes, in order, from the receive loop; ``on_peer_lost`` once when an established
        link to or from a peer breaks, until one is up again; ``on_link_change`` with (node, "in" or "out",
        up). An exception from ``on_envelopes`` closes the link and goes to the loop's exception handler.
        ``on_disowned`` with (peer, reason) when a peer refuses this node because it isn't who it was under
        its id: it lost what it had promised, and must not go on. ``rng`` jitters the reconnects.

        ``known_incarnation`` says the latest incarnation of a node that is durably known here, 0 for none:
        who comes with a lower one is refused. ``hints``: a second address to try where a node isn't found at
        the one it should have. ``on_offer`` decides about each snapshot that a peer offers; without it none
        is taken.
        """
        if identity.node_id in peers:
            raise ValueError(f"{identity.node_id} can't be its own peer")
        self._listen = listen
        self._limits = limits or LinkLimits()
        self._register = PeerRegister(
            peers,
            clock_s=lambda: asyncio.get_running_loop().time(),
            on_peer_lost=on_peer_lost,
            on_link_change=on_link_change,
            known_incarnation=known_incarnation,
            hints=hints,
        )
        self._identity = identity
        self._rng = rng or random.Random()
        self._on_disowned = on_disowned
        self._links = {node: self._make_link(node) for node in sorted(peers)}
        self._listener = Listener(
            identity=identity,
            register=self._register,
            on_envelopes=on_envelopes,
            on_link=self._on_incoming,
            on_link_end=self._on_incoming_end,
            limits=self._limits,
            inlet=on_offer
            and SnapshotInlet(
                identity=identity, register=self._register, on_offer=on_offer, limits=self._limits
            ),
        )
        self._latest_status: bytes | None = None
        self._dropped = 0  # for receivers that have no link
        self._leaving: set[asyncio.Task[None]] = set()  # links of those that are no peers any more
        self._started = False
        self._outlet = SnapshotOutlet(identity=identity, register=self._register, limits=self._limits)
        self._closing = False

    async def start(self) -> None:
        """Bind the peer port and begin to connect. Raises ``StartError`` (73) where the port can't be had."""
        host, port = self._listen
        self._listen = host, await self._listener.start(host, port)
        self._started = True
        for link in self._links.values():
            link.start()

    async def close(self) -> None:
        """Say goodbye to all peers, at most ``close_timeout_ms`` for each step. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._register.silence()
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._leaving)
        await self._outlet.close()
        await self._listener.close()

    @property
    def listening(self) -> tuple[str, int]:
        """Host and port of the peer port; after ``start`` the real one where port 0 was asked for."""
        return self._listen

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Queue each envelope for its receiver, in order. Never blocks; a full queue or broken link drops,
        and so does a receiver that has no link: one that was removed may still be sent to.
        """
        links = self._links
        for envelope in envelopes:
            link = links.get(envelope.receiver)
            if link is None:
                self._dropped += 1
            else:
                link.queue.push(envelope)

    async def send_snapshot(self, peer: NodeId, offer: Offer, chunks: AsyncIterator[Sequence[bytes]]) -> str:
        """See ``SnapshotOutlet.send``."""
        return await self._outlet.send(peer, offer, chunks)

    def publish(self, status: Mapping[str, Any]) -> None:
        """Send ``status`` (JSON types) to every peer; a later one replaces it where it still waits.

        Raises ``WireError`` where it isn't JSON-like or is over 64 KiB.
        """
        self._latest_status = frame = encode_status(status)
        for link in self._links.values():
            link.queue.publish(frame)

    def views(self) -> list[PeerView]:
        """The peers as this node sees them, sorted by id."""
        return self._register.views()

    def client_url(self, node: NodeId) -> str | None:
        """What ``node`` advertises to clients; None until it was heard of."""
        return self._register.client_url(node)

    def dropped_messages(self) -> dict[NodeId, int]:
        """Envelopes not sent since the start, by receiver: its link was down, or its queue full."""
        return {node: link.queue.dropped_messages for node, link in self._links.items()}

    def move_peer(self, node: NodeId, address: str) -> None:
        """From the next attempt on, look for ``node`` at ``address`` (host:port). A link that is up stays."""
        self._register.move(node, address)
        self._links[node].hurry()

    def set_peers(self, peers: Mapping[NodeId, str], own_address: str = "") -> None:
        """From now on the peers are these, at these addresses (host:port); ``own_address`` is where the same
        list has this node, "" where it doesn't.

        New ones are connected to; a link that is up stays where the address has changed. One that is no peer
        any more, but still has a link to us, is answered for as long as it has, as one of at most
        ``peers.MAX_GUESTS``; the links with the others end.
        """
        if self._identity.node_id in peers:
            raise ValueError(f"{self._identity.node_id} can't be its own peer")
        if self._closing:
            return
        self._register.own_address = own_address
        moved = self._register.set_peers(peers)
        for node in self._register.strangers():
            self._dismiss(node)
        for node in sorted(peers):
            self._connect(node)
        for node in moved:
            self._links[node].hurry()

    # -- links come and go ---------------------------------------------------------------------------------

    def _make_link(self, node: NodeId) -> OutgoingLink:
        return OutgoingLink(
            node,
            identity=self._identity,
            register=self._register,
            limits=self._limits,
            rng=self._rng,
            on_disowned=self._on_disowned,
        )

    def _connect(self, node: NodeId) -> None:
        if node in self._links:
            return
        link = self._links[node] = self._make_link(node)
        if self._latest_status is not None:
            link.queue.publish(self._latest_status)
        if self._started:
            link.start()

    def _dismiss(self, node: NodeId) -> None:
        link = self._links.pop(node)
        link.retire()
        self._register.forget(node)
        self._listener.dismiss(node)
        task = asyncio.get_running_loop().create_task(link.close())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _on_incoming(self, node: NodeId) -> None:
        if self._closing:
            return
        self._connect(node)
        self._links[node].hurry()

    def _on_incoming_end(self, node: NodeId) -> None:
        if self._register.is_guest(node) and not self._closing:
            self._dismiss(node)
