"""``raftkv verify`` of any lines: judged, or refused in one line that names the line; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from raftkv.cli import main
from raftkv.verify.jsonl import BadHistory, read_history, write_history
from tests.fuzz.budget import budget
from tests.fuzz.mutations import mutated
from tests.verify.test_generated import history

NUMBERS = st.integers(-2, 5) | st.floats() | st.sampled_from([10**30, 10**400, -(10**400), 2**63, 1e308])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=4) | st.sampled_from(["\ud800", "k", "YQ=="])
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "revision": NUMBERS,
        "version": NUMBERS,
        "deleted": st.sampled_from([0, 1]),
        "refused": st.just(True),
        "mod_revision": NUMBERS,
        "found": st.booleans(),
        "value": st.sampled_from(["v", "\ud800"]),
        "items": st.lists(
            st.fixed_dictionaries({"key": st.just("k")}, optional={"version": NUMBERS}), max_size=2
        ),
        "more": st.booleans(),
    },
)
# Nearly lines: right in most places, so that the checks behind the first are reached, too.
DOCUMENTS = st.fixed_dictionaries(
    {
        "client": st.sampled_from(["c1", "c1", "c2", "\ud800", "\x1b[31m"]),
        "op": st.sampled_from(["put", "put", "delete", "get", "list", "cas", "no"]),
        "call": st.just(0.5) | NUMBERS,
        "outcome": st.sampled_from(["ok", "ok", "fail", "unknown"]),
    },
    optional={
        "return": st.just(1) | NUMBERS,
        "key": st.sampled_from(["k", "l", "\ud800"]),
        "key_base64": st.sampled_from(["/w==", "&", "YQ=="]),
        "value": st.sampled_from(["1", "2"]),
        "condition": st.sampled_from(["exists", "absent", "revision_in", "never"]),
        "revisions": st.lists(NUMBERS, max_size=2),
        "limit": NUMBERS,
        "stale": st.booleans(),
        "reverse": st.booleans(),
        "result": RESULTS | ANYTHING,
    },
)
SOUND = st.integers(0, 2**32).map(
    lambda seed: "".join(write_history(history(Random(seed), 6, keys=2, lost=0.2, overlap=3))).encode()
)
LINES = (
    DOCUMENTS.map(json.dumps)
    | ANYTHING.map(json.dumps)
    | st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=20)
)


@given(st.lists(LINES, min_size=1, max_size=4))
@budget(150)
def test_lines_of_any_content(lines: list[str]) -> None:
    try:
        read = read_history(lines)
    except BadHistory as bad:
        said = str(bad)
    else:
        assert len(read) == sum(bool(line.strip()) for line in lines)
        assert read_history(write_history(read)) == read
        return
    assert said.startswith("line ")
    assert said.partition(":")[0].removeprefix("line ").isdigit()


def run(path: Path, content: bytes) -> Result:
    """``raftkv verify`` of ``content``: 0, 1 or 2 within its own time, and never a traceback."""
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["verify", str(path), "--timeout", "1s", "--html", str(path) + ".html"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1, 2)
    return result


@given(
    mutated(SOUND)
    | st.lists(DOCUMENTS.map(json.dumps), max_size=3).map(lambda lines: "\n".join(lines).encode())
)
@example(
    b'{"client": "c", "op": "put", "key": "a", "value": "1", "call": 1' + b"0" * 400 + b', "outcome": "fail"}'
)
@example(
    b'{"client": "\\ud800", "op": "put", "key": "a", "value": "1", "call": 0, "return": 1, "outcome": "ok",'
    b' "result": {"revision": 2}}'
)
@example(
    b'{"client": "c", "op": "put", "key": "a", "value": "1", "call": 0, "return": 1, "outcome": "ok",'
    b' "result": {"revision": 100000000000000}}'
)
@example(
    b'{"client": "c", "op": "list", "limit": 1' + b"0" * 30 + b', "call": 0, "return": 1, "outcome": "ok",'
    b' "result": {"items": [{"key": "a"}]}}'
)
@budget(60)
def test_files_of_any_content(tmp_path: Path, content: bytes) -> None:
    result = run(tmp_path / "history.jsonl", content)
    if result.exit_code == 2:
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"call": 10**400}, "line 1: "),
        ({"return": 10**400}, "line 1: "),
        ({"client": "\ud800"}, "line 1: "),
        ({"op": "\ud800"}, "line 1: "),
        ({"\ud800": 1}, "line 1: "),
    ],
    ids=["call", "return", "client", "op", "field"],
)
def test_what_cannot_be_told(tmp_path: Path, content: dict[str, Any], says: str) -> None:
    """Numbers beyond any clock, and halves of characters, which no terminal shows."""
    line = {"client": "c", "op": "put", "key": "a", "value": "1", "call": 0, "return": 1, "outcome": "fail"}
    result = run(tmp_path / "history.jsonl", json.dumps(line | content).encode())
    assert result.exit_code == 2
    assert says in result.stderr
