"""Drills that measure still run, and write what they measure to its place. The figures are not looked at."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk isn't installed"),
]

ROOT = Path(__file__).parents[2]


def test_what_the_levels_cost(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    text = (ROOT / "docs" / "consistency.md").read_text()
    document.write_text(text)
    drill = ROOT / "scripts" / "drills" / "levels.py"
    size = ["--seconds", "1", "--repetitions", "1", "--connections", "1", "--keys", "10", "--own-writes", "5"]
    place = ["--write", str(document), "--directory", str(tmp_path)]
    subprocess.run([sys.executable, drill, *size, "--only", "lease", *place], check=True, timeout=60)
    before, _, rest = document.read_text().partition("| level | asked at |")
    rows = rest.splitlines()[2:4]
    assert [row.split(" | ")[:2] for row in rows] == [["| `lease`", "leader"], ["| `lease`", "follower"]]
    assert text.startswith(before)
    assert text.endswith(rest.partition("<!-- end -->")[2])
