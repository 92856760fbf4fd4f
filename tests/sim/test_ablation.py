"""A simulator that can't fail is worth nothing: with a safeguard taken out it does.

The suite tries those that few seeds catch; ``scripts/ablate`` tries all.
"""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from raftkv.cli import main
from raftkv.consensus.log import Log
from raftkv.sim.ablation import ABLATIONS, Ablation, hunt

WITHIN_SEEDS = 60
TRIED = (
    "vote not persisted",
    "promises leave before the fsync",
    "promises overtake earlier writes",
    "leader counts itself before its fsync",
    "fsync does nothing",
    "directory never synced",
    "two votes in a term",
    "vote without comparing logs",
    "truncation without a conflict",
    "acknowledgement beyond what was covered",
    "follower commits its unchecked tail",
    "no no-op at the begin of a term",
    "ReadIndex before a commit of the own term",
    "read answered before it is applied",
    "duplicates applied again",
    "log cut up to the newest snapshot",
    "every life is the first",
    "heartbeat commits an unchecked tail",
    "unknown told as not applied",
    "proposals taken while handing over",
    "told to stand, own vote not awaited",
    "told to stand without the whole log",
    "every candidate says it is wished for",
    "snapshot installed before it is durable",
    "sessions left out of snapshots",
    "snapshots hold later writes",
    "machine not swapped at install",
    "start applies what the snapshot has",
    "log forgotten beyond the snapshot",
    "installed boundary not written",
    "history left out of snapshots",
    "cluster time runs ahead of all clocks",
    "lease reads granted without a lease",
    "lease counted from the answer",
    "lease without regard to drift",
    "a broken link frees a voter",
    "lease kept while handing over",
    "lease before a commit of the own term",
    "nobody lets time pass",
    "what is undone stays",
    "a token is applied each time",
    "a resumed watch tells of a revision again",
    "a resumed watch leaves one revision out",
    "the past lacks what was deleted",
)


def ablation(name: str) -> Ablation:
    return next(each for each in ABLATIONS if each.name == name)


@pytest.mark.parametrize("name", TRIED)
def test_a_missing_safeguard_is_noticed(name: str) -> None:
    catch = hunt(ablation(name), WITHIN_SEEDS)
    assert catch.is_notice, f"{WITHIN_SEEDS} seeds saw {catch.report and catch.report.failure}"


def test_an_ablation_is_undone() -> None:
    before = Log.__dict__["matches"]
    with ablation("log check skipped").applied():
        assert Log.__dict__["matches"] is not before
    assert Log.__dict__["matches"] is before


def test_a_twin_that_cannot_run_is_no_notice() -> None:
    twin = Ablation("no function at all", ((Log, "matches", None),))
    catch = hunt(twin, WITHIN_SEEDS)
    assert catch.report is not None
    assert not catch.is_notice


def test_names_are_unique() -> None:
    assert len({each.name for each in ABLATIONS}) == len(ABLATIONS)


def test_the_command_shows_the_seed_and_the_end_of_its_trace() -> None:
    with ablation("unknown told as not applied").applied():
        catch = hunt(Ablation("nothing", ()), WITHIN_SEEDS)
        assert catch.report is not None
        seed = catch.report.seed
        arguments = ["simulate", "--seeds", "1", "--from", str(seed), "--jobs", "1"]
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert f"failing seeds: {seed}" in done.stderr
    assert catch.report.story.splitlines()[0] in done.stdout
    assert " → " in done.stdout
