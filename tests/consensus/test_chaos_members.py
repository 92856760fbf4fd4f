"""Random runs in which members change, too; see ``chaos_members.py``. A failing seed is replayed by
``play(seed)``.
"""

from __future__ import annotations

import pytest

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import Verdict
from tests.consensus.chaos_members import play

SEEDS_A_TEST = 20


@pytest.mark.parametrize("first", range(0, 80, SEEDS_A_TEST))
def test_safe_under_every_fault_and_live_after_it(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            play(seed, steps=500)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_the_runs_are_worth_something() -> None:
    """Changes of every kind are begun, decided and refused, and joint memberships are left."""
    runs = [play(seed, steps=500) for seed in range(500, 530)]
    decided = [decode_membership(each.data) for run in runs for each in run.configs()]
    verdicts = [verdict for run in runs for verdict in run.verdicts()]
    assert all(verdicts.count(verdict) > 5 for verdict in Verdict)
    assert sum(each.is_joint for each in decided) > 10
    assert sum(bool(each.learners) for each in decided) > 10
    assert sum(run.membership.voters != run.cluster.membership.voters for run in runs) > 10
    assert sum(run.installed for run in runs) > 0
