"""``docs/paper.md`` names symbols and tests: each must exist, and each line must have both."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SCRIPTS = TESTS.parent / "scripts"
DOC = TESTS.parent.parent / "docs" / "paper.md"

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in DOC.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not re.match(r"\|[-|]+\||\| (Figure 2|Property|Paper or thesis) \|", line)
]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_what_a_line_names_exists(row: list[str]) -> None:
    _, code, tests = row
    assert quoted(code), "no symbol"
    assert quoted(tests), "no test"
    for symbol in quoted(code):
        module, *names = symbol.split(".")
        found: object = importlib.import_module(f"raftkv.consensus.{module}")
        for name in names:
            assert hasattr(found, name), f"{symbol} doesn't exist"
            found = getattr(found, name)
    for test in quoted(tests):
        if test.endswith(".txt"):
            assert (SCRIPTS / test).is_file(), f"no script {test}"
        else:
            file, name = test.split("::")
            source = (TESTS / file).read_text(encoding="utf-8")
            assert f"def {name}(" in source, f"{test} doesn't exist"


def test_all_of_figure_2_is_there() -> None:
    """Eight lines of state, five rules and three lines of interface for AppendEntries, and so on."""
    assert len(ROWS) >= 8 + 8 + 5 + 14 + 4 + 9
