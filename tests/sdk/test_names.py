"""What ``import raftkv`` offers: the same to programs and to type checkers, and at no cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import raftkv
from raftkv.errors import RaftkvError

STUB = Path(raftkv.__file__).with_suffix(".pyi")


def test_every_name_is_there() -> None:
    for name in raftkv._NAMES:
        assert getattr(raftkv, name).__name__ == name
        assert name in dir(raftkv)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        raftkv.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_are_told_the_same() -> None:
    told = {
        alias.name: node.module
        for node in ast.parse(STUB.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == raftkv._NAMES


def test_every_error_of_the_server_is_offered() -> None:
    names = {each.__name__ for each in RaftkvError.__subclasses__() if each.__module__ == "raftkv.errors"}
    assert names <= raftkv._NAMES.keys()


@pytest.mark.parametrize("module", ["raftkv", "raftkv.testing.plugin"])
def test_importing_takes_nothing_heavy(module: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", f"import {module}, sys; print('aiohttp' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "False"
