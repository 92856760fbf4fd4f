"""What the leader sees to without being asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from raftkv.consensus.types import Membership, NodeId
from raftkv.errors import NoQuorum
from raftkv.kv.commands import encode_level, encode_tick
from raftkv.kv.levels import MACHINE_LEVEL
from raftkv.ports import PeerView
from raftkv.server.housekeeping import Housekeeping
from tests.server.table import Table
from tests.server.virtual_time import advance, in_virtual_time

CONFIG = SimpleNamespace(history_changes=10, history_ms=1000)


def housekeeping(table: Table, *peers: PeerView, leads: bool = True) -> Housekeeping:
    """Of n1, one of n1 and n2, which proposes to ``table``."""
    now_ms = round(asyncio.get_running_loop().time() * 1000) if leads else None
    node = SimpleNamespace(node_id=NodeId("n1"), cluster_time_ms=now_ms, membership=Membership.of("n1", "n2"))
    parts: dict[str, Any] = {
        "config": CONFIG,
        "replica": SimpleNamespace(node=node),
        "machine": table.machine,
        "driver": table,
        "network": SimpleNamespace(views=lambda: peers),
    }
    return Housekeeping(**cast(Any, parts))


@pytest.mark.parametrize(
    ("level", "raised"), [(MACHINE_LEVEL, True), (MACHINE_LEVEL - 1, False), (None, False)]
)
def test_the_level_rises_when_all_members_understand_it(level: int | None, raised: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        table = Table()
        table.machine.level = 1
        status = None if level is None else {"machine_level": level}
        peer = PeerView(NodeId("n2"), "a:1", True, None, status, 1.0)
        command = housekeeping(table, peer)._next_command()
        assert command == (encode_level(MACHINE_LEVEL) if raised else None)

    run()


@in_virtual_time
async def test_a_lease_that_is_due_is_ended_whatever_failed_before() -> None:
    table = Table()
    table.grant(1000)
    assert housekeeping(table)._next_command() is None
    await advance(1001)
    assert housekeeping(table, leads=False)._next_command() is None
    running = asyncio.create_task(housekeeping(table).run())
    table.failure = NoQuorum("no leader")
    await advance(500)
    table.failure = None
    await advance(150)
    assert table.commands[:1] == [encode_tick()]
    assert table.machine.leases.rows() == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
