"""The seams between the rooms: what the replica's driver needs (Storage, Transport), and what it offers
(Service).

Protocols only. The server plugs in a real disk and real links, the tests and the simulator plug in others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftkv.consensus.messages import Envelope
from raftkv.consensus.types import Change, Index, NodeId, Term, Write
from raftkv.kv.places import Place, Queue
from raftkv.kv.results import DeleteResult
from raftkv.kv.watch import Hub
from raftkv.tallies import Tallies


class Storage(Protocol):
    """The node's durable state behind a queue. Writes complete first in, first out."""

    def write(self, write: Write, then: Callable[[], None]) -> None:
        """Queue ``write``; call ``then`` on the caller's thread once it and every write before it is durable.

        Never blocks. After a failure no ``then`` is ever called again: the failure is reported once, and is
        fatal.
        """
        ...


class Transport(Protocol):
    """The links to the peers. Lossy by contract: Raft resends what matters."""

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Queue each envelope for its receiver, in order. Never blocks; a full queue or broken link drops."""
        ...


@dataclass(frozen=True, slots=True)
class PeerView:
    """What this node knows of another one. ``status`` is the peer's own last report."""

    node: NodeId
    address: str  # host:port of its peer listener
    connected: bool  # both directions of the link are up
    client_url: str | None  # as it advertises it; None until its first hello
    status: Mapping[str, Any] | None
    status_age_ms: float | None


class Backup(Iterator[bytes], Protocol):
    """A node's machine as it was at one moment, as the bytes of a snapshot, in pieces; empty ones say that
    there is more to do. Close it: it costs memory with every write until then.
    """

    @property
    def name(self) -> str:
        """For a file of it; no path."""
        ...

    @property
    def revision(self) -> int: ...

    @property
    def keys(self) -> int: ...

    @property
    def kept_bytes(self) -> int:
        """Of rows that were changed since that moment, and kept because they are still to come."""
        ...

    def rest(self) -> Awaitable[None]:
        """To be awaited after each piece: lets others have their turns, as long as it has earned them."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who wants a place in a queue: with a ``lease`` of its own, or one of ``ttl_ms`` that is made for it."""

    value: bytes = b""
    lease: int = 0
    ttl_ms: int = 0
    token: str | None = None  # of an idempotent request


class Queues(Protocol):
    """The queues of locks and elections. Whoever is first in one has the lock, or leads."""

    def acquire(
        self, queue: Queue, candidate: Candidate, *, wait_ms: float, timeout_ms: float
    ) -> Awaitable[Place]:
        """The candidate's place once it is the first, ``wait_ms`` from now at the latest. With 0, it never
        has one unless it is the first. A place that its ``lease`` or ``token`` has already is that place.

        Cancelled, it gives its place up. Raises ``LockHeld`` (it has no place), ``NoSuchLease`` (nor had it,
        or it has ended) or as ``Service.propose`` does.
        """
        ...

    def release(self, queue: Queue, *, lease: int, token: int, timeout_ms: float) -> Awaitable[DeleteResult]:
        """Give up the place that goes with ``lease``, or whose fencing token is ``token``; 0 is neither's."""
        ...

    def proclaim(self, queue: Queue, lease: int, value: bytes, *, timeout_ms: float) -> Awaitable[Place]:
        """Change the value of the first place, which goes with ``lease``. Raises ``NotHolder``."""
        ...


class Service(Protocol):
    """A node as its clients see it. What the REST handlers are written against."""

    @property
    def node_id(self) -> NodeId: ...

    @property
    def leader(self) -> NodeId | None:
        """Who leads, as far as this node knows."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether this node was told to stop: it still answers, but is to be asked no more."""
        ...

    @property
    def queues(self) -> Queues: ...

    def cluster_time(self) -> tuple[int, bool]:
        """The cluster time in ms, and whether that is the present; else it is that of the last command."""
        ...

    @property
    def hub(self) -> Hub:
        """Who watches this node's store."""
        ...

    @property
    def tallies(self) -> Tallies:
        """What this node has counted of itself."""
        ...

    def client_url(self, node: NodeId) -> str | None:
        """Where clients reach ``node``, as it advertises it; None until it was heard of."""
        ...

    def propose(self, command: bytes, timeout_ms: float) -> Awaitable[Any]:
        """Replicate an encoded command; the machine's result for it, once applied *on this node*.

        Raises a ``raftkv.errors.RaftkvError`` whose ``outcome`` says whether it may have been applied.
        """
        ...

    def barrier(self, timeout_ms: float, *, by_lease: bool = False) -> Awaitable[None]:
        """Return once this node's machine holds every write acknowledged anywhere before the call
        (ReadIndex). ``by_lease``: as far as clocks don't drift more than is configured, where the leader has
        a lease; that saves a round.

        Raises ``raftkv.errors.RaftkvError`` (``not_applied``) when no majority confirmed in time.
        """
        ...

    def require(self, feature: str, timeout_ms: float) -> Awaitable[None]:
        """Return once all members understand ``feature``, one of ``kv.levels.FEATURES``: usually at once.

        Raises ``UpgradeUnfinished`` (``not_applied``).
        """
        ...

    def transfer(self, target: NodeId | None, timeout_ms: float) -> Awaitable[tuple[NodeId, Term]]:
        """Have ``target`` lead instead of who does; None: whoever the leader finds fittest. Any node takes
        the wish, and it is tried once. Returns who leads then, and its term.

        Raises ``BadRequest`` where ``target`` is no member, and else a ``RaftkvError``: ``not_applied`` where
        it could not be tried, ``unknown`` where it did not happen in time and still may.
        """
        ...

    def change_members(self, change: Change, *, force: bool, timeout_ms: float) -> Awaitable[Index]:
        """Change who the members are; any node takes the wish. Returns the index at which it is as wished,
        once that is committed and applied on this node.

        Raises ``ChangeRefused`` (``not_applied``) where it can't be done, or not now, and else a
        ``RaftkvError`` whose ``outcome`` says whether it may be done yet.
        """
        ...

    def members(self) -> dict[str, Any]:
        """The members as this node sees them, as ``GET /v1/cluster/members`` shows them (JSON types only)."""
        ...

    def backup(self) -> Backup:
        """This node's machine as it is now.

        Raises ``NoQuorum`` while it has applied nothing, ``TooManyRequests`` while too many are being read.
        """
        ...

    def take_snapshot(self, timeout_ms: float) -> Awaitable[dict[str, Any]]:
        """Have this node take a snapshot, or wait for the one it is taking. What it covers, once it is
        durable (JSON types only): ``index``, ``term``, ``time_ms``, ``bytes``.

        Raises ``SnapshotFailed``, or ``TimedOut`` (``unknown``: it goes on).
        """
        ...

    def reached(self, revision: int, timeout_ms: float) -> Awaitable[None]:
        """Return once this node's machine is at ``revision`` or beyond.

        Raises ``NotReached``, ``TooManyRequests`` or ``ShuttingDown``.
        """
        ...

    def staleness_ms(self) -> float | None:
        """How long ago this node heard that its machine holds all there is, in ms; None: it has heard of no
        leader. NB: how old that word was when it came isn't in it.
        """
        ...

    def vouched_age_ms(self) -> float | None:
        """All that was acknowledged anywhere earlier than so many ms ago is in this node's machine, for sure;
        None: it has never asked.
        """
        ...

    def status(self) -> dict[str, Any]:
        """This node's own state, as ``GET /v1/status`` shows it (JSON types only)."""
        ...

    def peers(self) -> Sequence[PeerView]:
        """The other members, sorted by id."""
        ...
