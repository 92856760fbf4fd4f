"""Each rule of changing members, taken out (``raftkv/sim/broken_members.py``), is missed by a golden script;
and those whose lack is dangerous by the random runs as well, soon.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from raftkv.consensus import InvariantBroken
from raftkv.sim.ablation import Ablation
from raftkv.sim.broken_members import ALL
from tests.consensus.chaos_members import play
from tests.scripts.runner import rendered

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts" / "members").glob("*.txt"))
SOON = (
    "committed by a majority of both halves together",
    "committed by those to come alone",
    "learners counted",
    "a removed leader counts itself",
    "voters changed in one step",
    "two changes of members at once",
    "joint memberships left by their own leader only",
)
WITHIN_SEEDS = 10


@contextmanager
def without(rule: str) -> Iterator[None]:
    with Ablation(rule, (ALL[rule],)).applied():
        yield


def differs(path: Path) -> bool:
    script = path.read_text(encoding="utf-8")
    try:
        return rendered(script) != script
    except Exception:
        return True  # it can't even be played


@cache
def sound_scripts() -> list[Path]:
    """Those that play as they are written while nothing is broken."""
    return [path for path in SCRIPTS if not differs(path)]


@pytest.mark.parametrize("rule", ALL)
def test_a_script_misses_it(rule: str) -> None:
    scripts = sound_scripts()
    assert scripts == SCRIPTS
    with without(rule):
        assert any(differs(path) for path in scripts)


def play_seeds() -> None:
    for seed in range(WITHIN_SEEDS):
        play(seed, steps=500)


@pytest.mark.parametrize("rule", SOON)
def test_random_runs_miss_it(rule: str) -> None:
    with without(rule), pytest.raises((AssertionError, InvariantBroken)):
        play_seeds()
