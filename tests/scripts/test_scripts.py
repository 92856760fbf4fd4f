"""Every golden script here, played and compared. ``pytest --rewrite`` renews them; read the diff then."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts.runner import rendered

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.glob("*/*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[f"{path.parent.name}/{path.stem}" for path in SCRIPTS])
def test_script(path: Path, rewrite: bool) -> None:
    script = path.read_text(encoding="utf-8")
    played = rendered(script)
    if rewrite:
        path.write_text(played, encoding="utf-8")
    else:
        assert played == script, f"{path.name} plays differently; pytest --rewrite shows how in git diff"


def test_the_runner_sees_a_difference() -> None:
    script = "A lone node.\n\n> cluster 1\n> campaign n1\nn1@2 leader\n"
    assert rendered(script) != script
