"""What all members understand: the machine's level and the protocol's version that they have in common.

Each node says its own in its status report. Whose report isn't known may run the oldest release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raftkv import __version__
from raftkv.consensus.types import NodeId
from raftkv.kv.levels import FEATURES, MACHINE_LEVEL, OLDEST_LEVEL
from raftkv.ports import PeerView
from raftkv.wire.frames import OLDEST_VERSION, PROTOCOL_VERSION


def own_report() -> dict[str, Any]:
    """The part of the status report that says what this node understands."""
    return {"version": __version__, "protocol": PROTOCOL_VERSION, "machine_level": MACHINE_LEVEL}


def common_level(others: Iterable[NodeId], peers: Sequence[PeerView]) -> int:
    """The machine level that this node and ``others``, the other members, all have."""
    known = {peer.node: peer.status or {} for peer in peers}
    levels = [_number(known.get(node, {}), "machine_level", OLDEST_LEVEL) for node in others]
    return min([MACHINE_LEVEL, *levels])


def may_use(feature: str, others: Iterable[NodeId], peers: Sequence[PeerView]) -> bool:
    """Whether all members understand ``feature``, one of ``kv.levels.FEATURES``. Once true, it stays true
    unless a member goes back to an older release, which the machine's data forbids.
    """
    return common_level(others, peers) >= FEATURES[feature]


def outdated(peers: Sequence[PeerView], version: int) -> list[NodeId]:
    """Those that are up and speak no ``version`` of the protocol. NB: one that is down can't be asked; it
    must be of this release when it comes back.
    """
    return [
        peer.node
        for peer in peers
        if peer.connected
        and peer.status is not None
        and _number(peer.status, "protocol", OLDEST_VERSION) < version
    ]


def _number(report: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = report.get(name)
    return value if type(value) is int else otherwise
