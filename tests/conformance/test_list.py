"""``docs/conformance.md`` is true: what it names exists, and no scenario of ``scenarios.txt`` is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from raftkv.sim.ablation import ABLATIONS
from tests.conformance.test_lab_kv import SCENARIOS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
SCENARIO_LIST = (Path(__file__).parent / "scenarios.txt").read_text(encoding="utf-8")
REASON = re.compile(r"later: leases\b|doesn't apply: \w{2}")


@dataclass(frozen=True)
class Row:
    """One line of a table: its scenarios, the tests that hold them, and what is said of them."""

    section: str
    scenarios: tuple[str, ...]
    held_by: tuple[str, ...]
    is_not_held: bool  # "-" stands for the tests
    words: str


def rows_of(document: str) -> list[Row]:
    rows = []
    section = ""
    for line in document.splitlines():
        if line.startswith("## "):
            section = line[3:].split(".")[0]
        elif line.startswith("| `"):
            scenarios, held_by, words = (cell.strip() for cell in line[1:-1].split("|"))
            rows.append(Row(section, quoted(scenarios), quoted(held_by), held_by == "-", words))
    return rows


def quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


@cache
def functions_in(path: Path) -> frozenset[str]:
    """The tests that ``path`` defines; none if there is no such file."""
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def exists(test: str) -> bool:
    """Whether ``path::test``, a golden script, or ``ablation: name`` is there."""
    if test.startswith("ablation: "):
        return test.removeprefix("ablation: ") in {each.name for each in ABLATIONS}
    if test.endswith(".txt"):
        return test.startswith("tests/scripts/") and (ROOT / test).is_file()
    path, _, name = test.partition("::")
    return (
        Path(path).name.startswith("test_") and name.startswith("test_") and name in functions_in(ROOT / path)
    )


def complaints(row: Row) -> Iterator[str]:
    """What is wrong with a row by itself."""
    if not row.scenarios:
        yield "no scenario"
    yield from (f"there is no {test}" for test in row.held_by if not exists(test))
    if row.is_not_held and not REASON.match(row.words):
        yield f"held by nothing, and no reason why: {row.words!r}"
    if not row.is_not_held and not row.held_by:
        yield "neither a test nor a reason"


def listed(text: str) -> dict[str, list[str]]:
    """The scenarios of the plain list, by section."""
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            names = sections.setdefault(match[1], [])
        elif line and not line.startswith("#"):
            names.append(line)
    return sections


def differences(rows: list[Row], wanted: Mapping[str, list[str]]) -> Iterator[str]:
    """Scenarios that are missing, listed twice, or unknown to the plain list."""
    found = [(row.section, name) for row in rows for name in row.scenarios]
    expected = [(section, name) for section, names in wanted.items() for name in names]
    yield from (f"missing: {each}" for each in expected if each not in found)
    yield from (f"not in scenarios.txt: {each}" for each in found if each not in expected)
    names = [name for _, name in found]
    yield from (f"twice: {name}" for name in sorted({name for name in names if names.count(name) > 1}))


ROWS = rows_of(DOCUMENT)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.section} {row.scenarios[0]}" for row in ROWS])
def test_what_a_row_names_exists(row: Row) -> None:
    assert list(complaints(row)) == []


def test_no_scenario_is_missing_or_twice() -> None:
    assert list(differences(ROWS, listed(SCENARIO_LIST))) == []


def test_every_line_of_the_tables_is_read() -> None:
    lines = [line for line in DOCUMENT.splitlines() if line.startswith("|")]
    heads = [line for line in lines if line.startswith(("| scenario |", "|---"))]
    assert len(ROWS) == len(lines) - len(heads)
    assert len(heads) == 2 * len(listed(SCENARIO_LIST))


def test_the_list_is_whole() -> None:
    """What the suites had when they were read: nobody shortens both lists at once unseen."""
    counts = {section: len(names) for section, names in listed(SCENARIO_LIST).items()}
    assert counts == {
        "1a": 42,
        "1b": 26,
        "1c": 118,
        "1d": 91,
        "2a": 28,
        "2b": 35,
        "2c": 40,
        "5a": 20,
        "5b": 14,
        "5c": 22,
        "5d": 18,
        "5e": 7,
        "5f": 23,
    }


def test_each_generic_scenario_has_its_case() -> None:
    of_generic = {
        name
        for row in ROWS
        if any(t.endswith("::test_generic") for t in row.held_by)
        for name in row.scenarios
    }
    assert of_generic == set(SCENARIOS)


SOUND = (
    "| `A` `B` | `tests/conformance/test_list.py::test_the_list_is_whole` `ablation: fsync does nothing` | |"
)


@pytest.mark.parametrize(
    "line",
    [
        SOUND.replace("test_list.py", "test_lost.py"),
        SOUND.replace("test_the_list_is_whole", "test_the_list_was_whole"),
        SOUND.replace("test_the_list_is_whole", "exists"),
        SOUND.replace("fsync does nothing", "fsync does much"),
        "| `A` | `tests/scripts/election/lost.txt` | |",
        "| `A` | `docs/wal.txt` | |",
        "| `A` | | held by nothing |",
        "| `A` | soon | later: leases |",
        "| `A` | - | |",
        "| `A` | - | later |",
        "| `A` | - | later: snapshots |",
        "| `A` | - | doesn't apply: |",
    ],
)
def test_a_false_row_is_found(line: str) -> None:
    assert list(complaints(rows_of(SOUND)[0])) == []
    (row,) = rows_of(line)
    assert len(list(complaints(row))) == 1


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("## 1. One\n| `A` | - | |\n## 2. Two\n| `B` | - | |", []),
        ("## 1. One\n| `A` | - | |\n## 2. Two", ["missing: ('2', 'B')"]),
        ("## 1. One\n| `A` | - | |\n## 2. Two\n| `B` `B` | - | |", ["twice: B"]),
        (
            "## 1. One\n| `A` | - | |\n## 2. Two\n| `B` | - | |\n| `C` | - | |",
            ["not in scenarios.txt: ('2', 'C')"],
        ),
    ],
)
def test_a_false_list_is_found(document: str, found: list[str]) -> None:
    assert list(differences(rows_of(document), {"1": ["A"], "2": ["B"]})) == found
