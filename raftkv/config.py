"""One node's configuration: frozen, validated when it is made, every field documented with its unit.

Whatever is wrong raises ``StartError`` (exit code 78) with one line that names the option and what to do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raftkv.consensus.types import NodeId, Timing
from raftkv.errors import StartError

MAX_BODY_BYTES = 16 << 20  # half of what a frame between nodes may hold
EXIT_CONFIG = 78  # sysexits EX_CONFIG
_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL = re.compile(r"https?://[^\s/,]+")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


_SIZES = (
    "segment_bytes",
    "snapshot_bytes",
    "snapshot_send_bytes_per_s",
    "max_key_bytes",
    "max_value_bytes",
    "max_request_bytes",
    "history_changes",
)
_DURATIONS = (
    "heartbeat_ms",
    "election_timeout_min_ms",
    "election_timeout_max_ms",
    "request_timeout_ms",
    "max_request_timeout_ms",
    "drain_ms",
    "slow_fsync_ms",
    "history_ms",
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener is, or is to be found. ``host`` may be a name: it is looked up at every connection."""

    host: str
    port: int  # 1-65535

    @property
    def is_anywhere(self) -> bool:
        """Whether one can listen there, on all of a machine's addresses, but not connect to it."""
        return self.host in ("0.0.0.0", "::", "*")

    @staticmethod
    def parse(text: str, what: str) -> Address:
        match = _HOST_PORT.fullmatch(text)
        if match is None or not 0 < int(match[2]) < 65536:
            raise StartError(f"{what} must be HOST:PORT, got {text!r}", EXIT_CONFIG)
        return Address(match[1].strip("[]"), int(match[2]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_cluster(text: str) -> dict[NodeId, Address]:
    """``n1=host:port,n2=host:port`` as a mapping, sorted by id."""
    members: dict[NodeId, Address] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = part.partition("=")
        if not equals:
            raise StartError(f"--cluster wants ID=HOST:PORT, separated by commas; got {part!r}", EXIT_CONFIG)
        if name in members:
            raise StartError(f"--cluster names {name!r} twice", EXIT_CONFIG)
        members[NodeId(name)] = Address.parse(address, f"the address of {name!r} in --cluster")
    return dict(sorted(members.items()))


def parse_join(texts: Sequence[str]) -> tuple[str, ...]:
    """URLs of nodes, each text one or several separated by commas, without a slash at the end."""
    urls = [part.strip().rstrip("/") for text in texts for part in text.split(",") if part.strip()]
    for url in urls:
        if not _URL.fullmatch(url):
            raise StartError(f"--join wants URLs like http://host:8001, got {url!r}", EXIT_CONFIG)
    return tuple(dict.fromkeys(urls))


@dataclass(frozen=True, slots=True)
class Config:
    """What one node needs to know to start."""

    node_id: NodeId
    """This node's id, 1-64 of ``A-Z a-z 0-9 . _ -``; a member of ``cluster``. It keeps its data directory."""

    data_dir: Path
    """The directory of the write-ahead log; made if missing. Belongs to one node of one cluster."""

    listen: Address
    """Where clients reach this node's REST API."""

    peer_listen: Address
    """Where the other nodes reach this one. Never expose it to clients: peers are trusted."""

    cluster: Mapping[NodeId, Address] = field(default_factory=dict)
    """Every founding member's id and peer address, the same on every node. Who the members are afterwards
    stands in the log; the addresses still say where else a node may be found."""

    cluster_name: str = ""
    """Tells clusters apart, so that their nodes refuse each other; "" derives it from ``cluster``."""

    cluster_token: str = ""
    """What ``raftkv restore`` left in ``data_dir``; part of the cluster's id, which is a new one by it."""

    advertise: str = ""
    """The URL under which clients reach this node, as told to others; "" derives it from ``listen``."""

    join: tuple[str, ...] = ()
    """URLs of nodes of a cluster that this node is to be added to; asked until it has a data directory."""

    advertise_peer: Address | None = None
    """Where the other nodes find this one; None: where ``cluster`` says, or else ``peer_listen``."""

    heartbeat_ms: float = 50.0
    """How often a leader makes itself heard, in milliseconds."""

    election_timeout_min_ms: float = 300.0
    """How long a follower at least waits for a leader it doesn't hear, in milliseconds."""

    election_timeout_max_ms: float = 600.0
    """How long it waits at most; each wait is drawn between the two, in milliseconds."""

    lease_ms: float = 0.0
    """For how long a follower is bound to the leader that it has heard, in milliseconds, so that the leader
    may answer ``consistency=lease`` without a round; 0: not at all. A leader that dies is replaced so much
    later. At most ``election_timeout_min_ms``; more than a heartbeat to be of use. The same on every node."""

    max_clock_drift: float = 0.1
    """How much faster or slower than true time any clock runs at most, as a share; leases rest on it."""

    segment_bytes: int = 16 << 20
    """The size at which the log begins a new file, in bytes; at least 4096."""

    snapshot_bytes: int = 64 << 20
    """A snapshot is taken when so many bytes of entries were applied since the last one, or as many as that
    one took, up to four times this.
    """

    history_changes: int = 50_000
    """So many of the last changes are kept, for reads of the past and for watches that were interrupted."""

    history_ms: float = 3_600_000.0
    """Changes older than this are forgotten though there are fewer, in milliseconds of cluster time."""

    snapshot_margin_bytes: int = 8 << 20
    """Entry data that stays in the log behind a snapshot, for slow followers, in bytes; 0: nothing does."""

    snapshot_send_bytes_per_s: int = 64 << 20
    """How fast this node sends snapshots, to all followers together, in bytes a second."""

    max_key_bytes: int = 4096
    """The longest key, in bytes after percent-decoding."""

    max_value_bytes: int = 1 << 20
    """The largest value, in bytes."""

    max_request_bytes: int = 4 << 20
    """The largest request body, in bytes."""

    quota_bytes: int = 0
    """How much may be stored, of keys, values and what is noted with each, in bytes; 0: no bound. To be the
    same on all nodes: each looks at what it has itself."""

    request_timeout_ms: float = 5000.0
    """How long a request may wait for its answer if it doesn't say (``?timeout=``), in milliseconds."""

    max_request_timeout_ms: float = 60_000.0
    """The longest ``?timeout=`` a request may ask for, in milliseconds."""

    drain_ms: float = 5000.0
    """How long a node that stops waits for what it was asked to be answered, in milliseconds."""

    slow_fsync_ms: float = 50.0
    """An fsync that takes longer is logged as a warning, in milliseconds."""

    log_level: str = "info"
    """The least level that is logged: debug, info, warning or error."""

    log_format: str = "auto"
    """``json`` (one object a line), ``console`` (colour), or ``auto``: console on a terminal."""

    timing: Timing = field(init=False)
    """The protocol's clocks, made from the fields above."""

    def __post_init__(self) -> None:
        for name in (self.node_id, *self.cluster):
            if _NODE_ID.fullmatch(name) is None:
                raise StartError(f"node id {name!r} must be 1-64 of A-Z a-z 0-9 . _ -", EXIT_CONFIG)
        if not self.cluster and not self.join:
            raise StartError("give --cluster to found one, or --join to be added to one", EXIT_CONFIG)
        if self.join and not self.peer_address:
            raise StartError(
                f"others can't find this node at {self.peer_listen}: say with --advertise-peer where they do",
                EXIT_CONFIG,
            )
        if self.cluster and self.node_id not in self.cluster:
            members = ", ".join(self.cluster) or "nobody"
            raise StartError(f"--cluster names {members}, but not --id {self.node_id}: add it", EXIT_CONFIG)
        at: dict[str, NodeId] = {}
        for name, address in self.cluster.items():
            other = at.setdefault(str(address), name)
            if other != name:
                raise StartError(
                    f"--cluster gives {other} and {name} the same address {address}", EXIT_CONFIG
                )
        for limit in _SIZES:
            if getattr(self, limit) <= 0:
                raise StartError(f"{limit} must be positive", EXIT_CONFIG)
        for duration in _DURATIONS:
            if not 0 < getattr(self, duration) < float("inf"):  # a NaN is neither
                raise StartError(f"{duration} must be positive and finite", EXIT_CONFIG)
        if max(self.max_value_bytes, self.max_request_bytes) > MAX_BODY_BYTES:
            raise StartError(
                f"a value or request of more than {MAX_BODY_BYTES} bytes can't be replicated", EXIT_CONFIG
            )
        if self.request_timeout_ms > self.max_request_timeout_ms:
            raise StartError("request_timeout_ms must not be above max_request_timeout_ms", EXIT_CONFIG)
        if self.snapshot_margin_bytes < 0:
            raise StartError("snapshot_margin_bytes must not be negative", EXIT_CONFIG)
        if self.quota_bytes < 0:
            raise StartError("quota_bytes must not be negative", EXIT_CONFIG)
        if self.segment_bytes < 4096:
            raise StartError("segment_bytes must be at least 4096", EXIT_CONFIG)
        if self.advertise and not re.fullmatch(r"https?://[^\s/]+/?", self.advertise):
            raise StartError(
                f"--advertise must be a URL like http://host:8001, got {self.advertise!r}", EXIT_CONFIG
            )
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise StartError(
                f"log_level must be debug, info, warning or error, got {self.log_level!r}", EXIT_CONFIG
            )
        if self.log_format not in ("auto", "json", "console"):
            raise StartError(
                f"log_format must be auto, json or console, got {self.log_format!r}", EXIT_CONFIG
            )
        try:
            timing = Timing(
                self.heartbeat_ms,
                self.election_timeout_min_ms,
                self.election_timeout_max_ms,
                lease_ms=self.lease_ms,
                max_clock_drift=self.max_clock_drift,
            )
        except ValueError as error:
            raise StartError(str(error), EXIT_CONFIG) from None
        object.__setattr__(self, "timing", timing)

    @property
    def cluster_id(self) -> str:
        """16 hex digits that all founding members derive alike, and that no other cluster should."""
        founders = sorted(self.cluster.items())  # whatever order they were given in
        members = ",".join(name if self.cluster_name else f"{name}={address}" for name, address in founders)
        token = f"\n{self.cluster_token}" if self.cluster_token else ""
        return hashlib.sha256(f"{self.cluster_name}\n{members}{token}".encode()).hexdigest()[:16]

    @property
    def founders(self) -> dict[NodeId, str]:
        """The founding members and their peer addresses; nobody where this node joins."""
        return {} if self.join else {node: str(address) for node, address in self.cluster.items()}

    @property
    def peer_address(self) -> str:
        """Where the other nodes find this one; "" where that can't be said."""
        listen = None if self.peer_listen.is_anywhere else self.peer_listen
        address = self.advertise_peer or self.cluster.get(self.node_id) or listen
        return "" if address is None else str(address)

    @property
    def client_url(self) -> str:
        """The URL that others are told."""
        return self.advertise.rstrip("/") or f"http://{self.listen}"
