"""Broken twins of what reads rest on, and of who may be voted for, for ``ablation.py``."""

from __future__ import annotations

from typing import Any

from raftkv.consensus.node import Node
from raftkv.consensus.reads import Reads
from raftkv.consensus.ready import Ready
from raftkv.consensus.roles import Leader, ReadRequest
from raftkv.replica import Replica

Patch = tuple[Any, str, Any]


def round_under_way_joined() -> Patch:
    """A read is confirmed by a round that had begun before it came."""
    original = Reads.register

    def register(self: Reads, leader: Leader, request: ReadRequest) -> bool:
        if leader.reads_open is None:
            return original(self, leader, request)
        leader.reads_open.requests.append(request)
        return True

    return Reads, "register", register


def fresh_before_applied() -> Patch:
    """A machine is as fresh as its node, which may know more than is applied."""
    original = Replica.apply

    def apply(self: Replica, ready: Ready) -> Any:
        answers = original(self, ready)
        self.fresh_ms = self._node.fresh_ms
        return answers

    return Replica, "apply", apply


def loyalty_left_out() -> Patch:
    """Who hears its leader, or is bound to it, votes for others all the same."""

    def is_loyal(self: Node) -> bool:
        return False

    return Node, "_is_loyal", is_loyal


ALL: dict[str, Patch] = {
    "a read joins the round under way": round_under_way_joined(),
    "fresh before it is applied": fresh_before_applied(),
    "who hears its leader votes for others": loyalty_left_out(),
}
