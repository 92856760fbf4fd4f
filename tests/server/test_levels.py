"""What all members understand: the least of what they say, and the oldest of whom nothing is known."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.consensus.types import NodeId
from raftkv.kv import levels as kv_levels
from raftkv.ports import PeerView
from raftkv.server import levels
from raftkv.server.levels import common_level, may_use, outdated, own_report

N2, N3 = NodeId("n2"), NodeId("n3")


def view(node: NodeId, status: dict[str, Any] | None, *, connected: bool = True) -> PeerView:
    return PeerView(node, "a:1", connected, None, status, None if status is None else 10.0)


@pytest.fixture(autouse=True)
def _later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "MACHINE_LEVEL", 3)
    monkeypatch.setattr(levels, "FEATURES", {"leases": 2, "watches": 3})


def test_the_least_counts() -> None:
    peers = [view(N2, {"machine_level": 2}), view(N3, {"machine_level": 4})]
    assert common_level([N2, N3], peers) == 2
    assert common_level([N3], peers) == 3
    assert common_level([], peers) == 3
    assert may_use("leases", [N2, N3], peers)
    assert not may_use("watches", [N2, N3], peers)


@pytest.mark.parametrize("status", [None, {}, {"machine_level": "3"}, {"machine_level": True}])
def test_who_does_not_say_is_of_the_oldest_release(status: dict[str, Any] | None) -> None:
    assert common_level([N2], [view(N2, status)]) == kv_levels.OLDEST_LEVEL
    assert common_level([N2], []) == kv_levels.OLDEST_LEVEL


def test_who_is_outdated() -> None:
    new, old, silent = {"protocol": 2}, {"protocol": 1}, {"role": "follower"}
    assert outdated([view(N2, new), view(N3, old)], 2) == [N3]
    assert outdated([view(N2, silent)], 2) == [N2]
    assert outdated([view(N2, old, connected=False), view(N3, None)], 2) == []


def test_own_report() -> None:
    assert own_report().keys() == {"version", "protocol", "machine_level"}
