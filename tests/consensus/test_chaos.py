"""Random runs under all faults at once; see ``chaos.py``. A failing seed is replayed by ``play(seed)``."""

from __future__ import annotations

import pytest

from tests.consensus.chaos import play

SEEDS_A_TEST = 50


@pytest.mark.parametrize("first", range(0, 400, SEEDS_A_TEST))
def test_safe_under_every_fault_and_live_after_it(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            play(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_the_runs_are_worth_something() -> None:
    """What the random runs do must not fade away unseen: elections, commits, reads, cut logs."""
    runs = [play(seed, steps=600) for seed in range(500, 540)]
    assert sum(len(run.cluster.checks.leaders) for run in runs) > 50
    assert sum(len(run.cluster.checks.committed) for run in runs) > 400
    assert sum(len(run.cluster.checks.granted) for run in runs) > 200
    assert sum(run.overwritten for run in runs) > 0
    assert sum(run.installed for run in runs) > 0


def test_a_seed_is_one_run() -> None:
    """Nothing but the seed decides: not time, not hashing, not memory addresses."""
    one, other = play(7, steps=600), play(7, steps=600)
    assert one.cluster.checks.committed == other.cluster.checks.committed
    assert one.cluster.checks.votes == other.cluster.checks.votes
    assert one.cluster.now_ms == other.cluster.now_ms
