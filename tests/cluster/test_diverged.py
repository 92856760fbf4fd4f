"""A node whose state isn't the cluster's ends by itself, and the others say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftkv.server.comparing import EXIT_DIVERGED
from tests.cluster.harness import Node, running

pytestmark = pytest.mark.cluster


async def test_a_node_with_another_state_stops(tmp_path: Path) -> None:
    async with running(tmp_path, start=False) as cluster:
        *sound, wrong = cluster.nodes
        wrong.module = ("tests.cluster.corrupted", "poisoned")
        for node in cluster.nodes:
            node.start()
        await cluster.leader()

        async def has_risen() -> bool:
            return all([(await status_of(node)).get("level") == 2 for node in cluster.nodes])

        async def is_known() -> bool:
            return all([(await status_of(node))["alarm"] for node in sound])

        async def status_of(node: Node) -> dict[str, Any]:
            return await cluster.status(node) or {}

        await cluster.until(has_risen, "the machines' level rises")
        assert (await cluster.put(sound[0], "other", "value")).status in {200, 201}
        assert not await is_known()
        assert (await cluster.put(sound[0], "poisoned", "value")).status in {200, 201}
        assert await wrong.exit_code() == EXIT_DIVERGED
        assert "n3 and n1, n2 have different states at revision 2" in wrong.last_words()[0]
        await cluster.until(is_known, "the others say it")
        for node in sound:
            assert (await status_of(node))["alarm"].startswith(f"{node.name} and n3 have different states")
            assert (await cluster.get(node, "poisoned")).raw == b"value"
