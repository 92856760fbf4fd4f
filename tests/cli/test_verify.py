"""``raftkv verify``: its exit codes, its picture, and what it says of files that are no history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import main
from raftkv.verify import write_history
from raftkv.verify.history import Cas, Operation, Outcome, Written
from tests.verify.notation import get, put
from tests.verify.test_bounds import hopeless

WRITE = put("c1", "a=1", 0, 1, 1)
GOOD = [WRITE, get("c2", "a=1", 2, 3, 1, mod=1)]
BAD = [WRITE, get("c2", "a", 2, 3, 0)]


def run(tmp_path: Path, history: list[Operation], *arguments: str) -> Result:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(write_history(history)))
    return CliRunner().invoke(main, ["verify", str(path), *arguments])


def test_linearizable_is_0(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD)
    assert (result.exit_code, result.stdout) == (0, "2 operations: linearizable\n")


def test_refused_is_1_with_a_picture(tmp_path: Path) -> None:
    result = run(tmp_path, BAD)
    assert result.exit_code == 1
    assert "! c2  get a    none @0" in result.stdout
    assert "history.jsonl: not linearizable" in result.stderr


def test_html(tmp_path: Path) -> None:
    target = tmp_path / "picture.html"
    assert run(tmp_path, BAD, "--html", str(target)).exit_code == 1
    assert target.read_text().startswith("<!doctype html>")
    target.unlink()
    assert run(tmp_path, GOOD, "--html", str(target)).exit_code == 0
    assert not target.exists()


def test_undecided_is_1(tmp_path: Path) -> None:
    result = run(tmp_path, hopeless(), "--timeout", "200ms", "--model", "register")
    assert result.exit_code == 1
    assert "not decided" in result.stderr


def test_a_register(tmp_path: Path) -> None:
    history = [WRITE, Operation("c", Cas(b"a", b"1", b"2"), 2, 3, Outcome.OK, Written())]
    assert run(tmp_path, history, "--model", "register").exit_code == 0
    result = run(tmp_path, history)
    assert result.exit_code == 2
    assert "no operation of a key-value store" in result.stderr


@pytest.mark.parametrize("line", ["{}", "nonsense", json.dumps({"client": "c", "op": "put"})])
def test_no_history_is_2_and_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(write_history(GOOD)) + line)
    result = CliRunner().invoke(main, ["verify", str(path)])
    assert result.exit_code == 2
    assert "line 3: " in result.stderr


def test_other_wrong_files_are_2(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "none")]).exit_code == 2
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\n")
    assert CliRunner().invoke(main, ["verify", str(path)]).exit_code == 2


def test_stdin() -> None:
    result = CliRunner().invoke(main, ["verify", "-"], input="".join(write_history(BAD)))
    assert result.exit_code == 1
