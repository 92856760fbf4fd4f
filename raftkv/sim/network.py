"""Links between the nodes that lose, repeat, delay, reorder, fill up, clog and break.

A frame is what one node sends another in one go; a link that keeps order delivers whole frames in order, as a
connection does, one that doesn't delivers each message by itself. Cuts count: a link works when every cut on
it is healed. Nothing here knows what a message means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from raftkv.consensus.messages import (
    AppendEntriesRefusal,
    Envelope,
    PreVoteReply,
    Propose,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.consensus.types import NodeId
from raftkv.sim.plan import NetworkPlan
from raftkv.sim.trace import in_words
from raftkv.sim.world import World
from raftkv.wire.codec import decode_envelopes, encode_envelopes

STREAM_LOSS = 10  # a piece of a stream is lost so much less often than a frame: then its connection is
CODED = 0.02  # share of frames that go through the wire's encoding, too

Link = tuple[NodeId, NodeId]
"""(sender, receiver)"""


@dataclass(slots=True)
class LinkState:
    cuts: int = 0
    connection: int = 0  # grows when it breaks: what was under way then is lost
    frames: int = 0  # under way
    clogged_until_ms: float = 0.0
    last_arrival_ms: float = 0.0


@dataclass(slots=True)
class Network:
    world: World
    plan: NetworkPlan
    nodes: Sequence[NodeId]
    deliver: Callable[[NodeId, Sequence[Envelope]], None]
    on_peer_lost: Callable[[NodeId, NodeId], None]
    """(who is told, who was lost)"""
    calm: bool = False  # no more loss, duplication and clogging
    links: dict[Link, LinkState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.links = {(a, b): LinkState() for a in self.nodes for b in self.nodes if a != b}

    def send(self, envelopes: Sequence[Envelope]) -> None:
        frames: dict[NodeId, list[Envelope]] = {}
        for envelope in envelopes:
            self.world.note(in_words(envelope))
            self._probe(envelope)
            frames.setdefault(envelope.receiver, []).append(envelope)
        for receiver, frame in frames.items():
            link = frame[0].sender, receiver
            if self.world.random.random() < CODED:
                frame[:] = self._through_bytes(frame)
            if self.plan.keeps_order:
                self._send(link, frame)
            else:
                for envelope in frame:
                    self._send(link, [envelope])

    def _through_bytes(self, frame: list[Envelope]) -> list[Envelope]:
        """What the wire makes of it: the same, or the codec is wrong."""
        self.world.probes["frame coded"] += 1
        decoded = decode_envelopes(encode_envelopes(frame))
        if decoded != frame:
            raise AssertionError(f"the wire makes {decoded} of {frame}")
        return decoded

    def _send(self, link: Link, frame: list[Envelope]) -> None:
        state, random, world = self.links[link], self.world.random, self.world
        if state.cuts:
            world.probes["frame cut off"] += 1
            return
        if state.frames >= self.plan.max_frames:
            world.probes["link full"] += 1
            return
        if self.calm:
            self._fly(link, frame)
            return
        if random.random() < self.plan.loss:
            world.probes["frame lost"] += 1
            world.note(f"lost {link[0]} → {link[1]}")
            return
        self._fly(link, frame)
        if random.random() < self.plan.duplication:
            world.probes["frame duplicated"] += 1
            # NB: some copies come from another age, after elections and restarts.
            very_late = not self.plan.keeps_order and random.random() < 0.1
            self._fly(link, frame, random.expovariate(1 / self.plan.replay_ms) if very_late else 0.0)

    def _fly(self, link: Link, frame: list[Envelope], late_ms: float = 0.0) -> None:
        state, world, plan = self.links[link], self.world, self.plan
        delay_ms = plan.least_delay_ms + world.random.expovariate(1 / plan.mean_delay_ms) + late_ms
        arrival_ms = max(world.now_ms + delay_ms, state.clogged_until_ms)
        if plan.keeps_order:
            arrival_ms = max(arrival_ms, state.last_arrival_ms)
        elif arrival_ms < state.last_arrival_ms:
            world.probes["frame overtaken"] += 1
        state.last_arrival_ms = max(state.last_arrival_ms, arrival_ms)
        state.frames += 1
        world.at(arrival_ms, partial(self._arrive, link, state.connection, frame))

    def _arrive(self, link: Link, connection: int, frame: list[Envelope]) -> None:
        state = self.links[link]
        state.frames -= 1
        if state.connection == connection and not state.cuts:
            self.deliver(link[1], frame)

    def carry(self, link: Link, connection: int, slow_ms: float, then: Callable[[], None]) -> None:
        """A piece of a stream, beside the frames, over a connection that was open as number ``connection``:
        ``then`` happens when it has come, unless that has broken by then. Nobody is told if it has.
        """
        state, world, plan = self.links[link], self.world, self.plan
        breaks = not self.calm and world.random.random() < plan.loss / STREAM_LOSS
        if breaks or state.cuts:
            return
        delay_ms = plan.least_delay_ms + world.random.expovariate(1 / plan.mean_delay_ms) + slow_ms
        arrival_ms = max(world.now_ms + delay_ms, state.clogged_until_ms)
        world.at(arrival_ms, partial(self._carried, state, connection, then))

    def _carried(self, state: LinkState, connection: int, then: Callable[[], None]) -> None:
        if state.connection == connection and not state.cuts:
            then()

    def _probe(self, envelope: Envelope) -> None:
        match envelope.message:
            case PreVoteReply(granted=False):
                self.world.probes["PreVote refused"] += 1
            case RequestVoteReply(granted=False):
                self.world.probes["vote refused"] += 1
            case AppendEntriesRefusal():
                self.world.probes["append refused"] += 1
            case TimeoutNow():
                self.world.probes["told to stand"] += 1
            case Propose():
                self.world.probes["batch proposed to a follower"] += 1
            case _:
                pass

    # -- faults --------------------------------------------------------------------------------------------

    def cut(self, links: Iterable[Link]) -> list[Link]:
        """Cut ``links``, without notice; returns them for ``mend``."""
        cut = list(links)
        for link in cut:
            self.links[link].cuts += 1
        return cut

    def mend(self, links: Iterable[Link]) -> None:
        for link in links:
            self.links[link].cuts -= 1

    def mend_all(self) -> None:
        for state in self.links.values():
            state.cuts = 0
            state.clogged_until_ms = 0.0

    def clog(self, links: Iterable[Link], until_ms: float) -> None:
        for link in links:
            self.links[link].clogged_until_ms = until_ms

    def disconnect(self, one: NodeId, other: NodeId, told: Iterable[NodeId]) -> None:
        """The connections between two nodes break; ``told`` notice it, each a little later."""
        for link in ((one, other), (other, one)):
            self.links[link].connection += 1
            self.links[link].last_arrival_ms = 0.0
        for node in told:
            lost = other if node == one else one
            self.world.after(self.world.random.uniform(0, 10), partial(self.on_peer_lost, node, lost))
