"""Seeds in which members change: which those are, and that the rest is as it would be without."""

from __future__ import annotations

from random import Random

from raftkv.consensus.membership import encode_membership
from raftkv.consensus.types import NOBODY, Entry, EntryKind, Index, Membership, NodeId, Term
from raftkv.sim.joining import CHANGE, DAMAGE, draw_change, founded_with, membership_after, with_spares
from raftkv.sim.plan import draw
from raftkv.sim.run import Run, play


def test_some_seeds_have_spares_and_damage_nothing() -> None:
    plans = [with_spares(draw(Random(seed)), Random(seed)) for seed in range(200)]
    changing = [plan for plan in plans if plan.spares]
    assert 30 < len(changing) < 90
    for plan in plans:
        kinds = {kind for kind, _ in plan.faults}
        assert (CHANGE in kinds) == bool(plan.spares)
        assert not (plan.spares and kinds & set(DAMAGE))
        assert len(plan.names) == plan.size + plan.spares
        assert plan.names[: plan.size] == plan.membership.voters


def test_a_seed_without_spares_is_as_it_was_drawn() -> None:
    plans = [draw(Random(seed)) for seed in range(50)]
    assert sum(with_spares(plan, Random(seed)) is plan for seed, plan in enumerate(plans)) > 25


def test_who_founds_knows_the_founders_and_a_spare_nobody() -> None:
    plan = next(run.plan for run in map(Run, range(50)) if run.plan.spares)
    assert founded_with(plan, plan.names[0]) == plan.membership
    assert founded_with(plan, plan.names[-1]) == NOBODY


def test_what_is_committed_last_counts() -> None:
    one, other = Membership.of("n1"), Membership.of("n1", "n2")
    log = [
        Entry(Index(1), Term(1), EntryKind.CONFIG, 0, encode_membership(one)),
        Entry(Index(2), Term(1), EntryKind.CONFIG, 0, encode_membership(other)),
        Entry(Index(3), Term(1), EntryKind.NOOP, 0, b""),
    ]
    assert membership_after(one, log) == other
    assert membership_after(one, log[:1]) == one
    assert membership_after(other, []) == other


def test_every_change_is_drawn() -> None:
    random, names = Random(1), [NodeId("n1"), NodeId("n2")]
    drawn = {type(draw_change(random, names)).__name__ for _ in range(100)}
    assert drawn == {"AddLearner", "Promote", "Remove", "Move"}


def test_members_change_in_some_runs() -> None:
    """... and clients are served by those who are members then: each run ends with that."""
    seeds = [seed for seed in range(60) if Run(seed).plan.spares][:6]
    reports = [play(seed) for seed in seeds]
    assert [report.failure for report in reports] == [None] * 6
    assert sum(report.probes["members changed"] for report in reports) > 5
