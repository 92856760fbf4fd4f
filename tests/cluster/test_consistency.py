"""The levels of consistency at real nodes, on both sides of a cut; see docs/consistency.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.levels import BOUND, LEVELS, split

pytestmark = pytest.mark.cluster


async def test_who_answers_what_when_the_leader_is_cut_off(tmp_path: Path) -> None:
    well, cut_off, majority = await split(tmp_path)
    for level in LEVELS:
        expected = 503 if "min_revision" in level else 200  # nobody had written that yet
        assert well[level].status == expected, level
        assert majority[level].raw == b"new", level
    assert {level: reply.status for level, reply in cut_off.items()} == {
        "linearizable": 503,
        "lease": 503,
        f"stale, {BOUND}": 503,
        "stale": 200,
        "stale, min_revision=2": 503,
    }
    assert cut_off["stale"].raw == b"old"
    assert cut_off[f"stale, {BOUND}"].body["code"] == "too_stale"
    assert cut_off["stale, min_revision=2"].body["code"] == "revision_not_reached"
    assert int(cut_off["stale"].headers["Raftkv-Staleness-Ms"]) > 0
