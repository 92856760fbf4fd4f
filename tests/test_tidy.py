"""The house rules that matter, as tests: who may import whom, what the core must not know, sizes, names,
prose.

Each rule is a function from a parsed file to complaints (``path:line: what``), and is tried on a small text
that breaks it: a rule that can't fail is worth nothing. The import rules stand in pyproject.toml for import-
linter too, which also follows chains of imports; this file says the same without it, file by file and line by
line.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
UNITS = frozenset({"ms", "s", "bytes", "entries", "messages", "requests", "keys", "operations"})
SHAPELESS_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})

# The rooms and their layers (docs/architecture.md). A room imports lower layers, and on its own layer only
# what ARROWS says.
LAYERS = {
    "consensus": 0.0,
    "kv": 0.0,
    "errors": 0.4,
    "config": 0.5,
    "tallies": 0.5,
    "ports": 1.0,
    "wire": 1.0,
    "waiting": 1.0,
    "handover": 1.0,
    "members": 1.0,
    "reading": 1.0,
    "replica": 1.0,
    "storage": 2.0,
    "transport": 2.0,
    "api": 2.0,
    "client": 2.0,
    "sdk": 2.0,
    "server": 3.0,
    "sim": 4.0,
    "cli": 4.0,
    "testing": 5.0,
    "__main__": 5.0,
}
# Who on one layer may import whom: "room" -> what it may name there.
ARROWS = {
    "kv": {"raftkv.consensus.types"},  # the machine knows Index and Term, never Node
    "handover": {"raftkv.waiting"},
    "members": {"raftkv.waiting"},
    "reading": {"raftkv.waiting"},
    "replica": {"raftkv.ports", "raftkv.waiting", "raftkv.handover", "raftkv.members", "raftkv.reading"},
    "cli": {"raftkv.sim"},  # `raftkv simulate`
}
# Importable by everyone from layer 1 up, importing nothing of ours: `verify` judges the rest from outside.
STANDALONE = "verify"

# Law 1. The core imports what holds data or computes on it; all else comes in as an argument.
# fmt: off
PURE_STANDARD_LIBRARY = frozenset({
    "__future__", "abc", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "heapq",
    "itertools", "math", "operator", "struct", "types", "typing",
})
PURE_LIBRARIES = {"consensus": frozenset(), "kv": frozenset({"msgpack", "zlib"})}
# ... and what layer 1, which is pure too, must not name. A shorter list, for it may use data libraries
# freely.
IMPURE = frozenset({
    "aiohttp", "asyncio", "concurrent", "http", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "selectors", "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "tempfile",
    "threading", "time", "urllib", "uuid", "uvloop",
})
# fmt: on
PURE_ROOMS_OF_LAYER_1 = frozenset({"ports", "replica", "waiting", "handover", "members", "reading", "wire"})
# Builtins that bring in the world, or differ from process to process (law 10).
IMPURE_BUILTINS = frozenset({"breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"})

# Tests wait on conditions, not on time. Where a real process or disk is waited for, one poll with a deadline
# does it: that place is named here, "file::function" -> why.
SLEEPS = {
    "tests/cluster/harness.py::until": "real processes are polled, with a deadline and their logs on failure",
    "tests/cluster/wires.py::_pump": "a slow link is slow; nothing waits for it",
    "tests/nemesis/pace.py::pause": "a drill's faults last, and its clients think; nothing is asserted of it",
}


@dataclass(frozen=True)
class Source:
    """A file: its path from the repository's root, its text and its syntax tree."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        """Dotted name; that of the package for an ``__init__``."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def room(self) -> str:
        """The first name below ``raftkv``; empty for the package itself."""
        return [*self.module.split("."), ""][1]

    def at(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


def sources(*places: str) -> list[Source]:
    paths = sorted(path for place in places for path in (ROOT / place).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also those within functions and under TYPE_CHECKING."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.module.split(".")
                is_package = source.path.endswith("__init__.py")
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, base] if base else package)
            # `from raftkv import errors` names a room, as does `from raftkv.consensus import types` a module.
            yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)


def wrong_directions(source: Source) -> Iterator[str]:
    """Imports of ours against the layers."""
    room = source.room
    if room and room != STANDALONE and room not in LAYERS:
        yield source.at(1, f"the room {room!r} has no layer; give it one in LAYERS, and in pyproject.toml")
        return
    for line, name in imports(source):
        parts = name.split(".")
        if parts[0] != "raftkv" or len(parts) == 1:
            continue
        target = parts[1]
        if target == room or (target not in LAYERS and target != STANDALONE):
            continue  # its own room, or a name of the package itself, as __version__
        if not room or room == STANDALONE:
            yield source.at(line, f"{source.module} must import nothing of ours, and imports {name}")
        elif target == STANDALONE:
            if LAYERS[room] < 1:
                yield source.at(line, f"{room} must not import {name}")
        elif LAYERS[target] == LAYERS[room]:
            if not any(f"{name}.".startswith(f"{arrow}.") for arrow in ARROWS.get(room, ())):
                yield source.at(line, f"{room} and {target} are on one layer, and no arrow leads to {name}")
        elif LAYERS[target] > LAYERS[room]:
            yield source.at(line, f"{room} is below {target}, and imports {name}")


def impurities(source: Source) -> Iterator[str]:
    """What the pure rooms must not know: layer 0 by what is allowed, layer 1 by what is not."""
    room = source.room
    for line, name in imports(source):
        top = name.split(".")[0]
        if room in PURE_LIBRARIES:
            if top != "raftkv" and top not in PURE_STANDARD_LIBRARY | PURE_LIBRARIES[room]:
                yield source.at(line, f"{room} is pure and must not import {top}")
        elif room in PURE_ROOMS_OF_LAYER_1 and top in IMPURE:
            yield source.at(line, f"{room} is pure and must not import {top}")
    if room in PURE_LIBRARIES:
        for line, name in calls(source):
            if name in IMPURE_BUILTINS:
                yield source.at(line, f"{room} is pure and must not call {name}()")


def calls(source: Source) -> Iterator[tuple[int, str]]:
    """(line, name) of every call of a plain name."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id


def prints(source: Source) -> Iterator[str]:
    """Only the command line speaks to a person; all else logs."""
    if source.room != "cli":
        yield from (source.at(line, "print outside cli") for line, name in calls(source) if name == "print")


def long_files(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > MAX_FILE_LINES:
        yield source.at(lines, f"{lines} lines, more than {MAX_FILE_LINES}: more than one concept lives here")


def long_functions(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield source.at(node.lineno, f"{node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}")


def shapeless_names(source: Source) -> Iterator[str]:
    for part in source.module.split("."):
        if part.strip("_") in SHAPELESS_NAMES:
            yield source.at(1, f"a module named {part!r} says nothing of what is in it")


def missing_docstrings(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.tree):
        yield source.at(1, "no module docstring: what is it, its rules, what must it not know?")


def undocumented_fields(source: Source) -> Iterator[str]:
    """Each field of config.py says what it is: a comment on its line or right above it, or a docstring."""
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type == tokenize.COMMENT and re.search(r"\w{2}", token.string)
    }
    for cls in ast.walk(source.tree):
        if not isinstance(cls, ast.ClassDef) or cls.name != "Config":
            continue
        for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
                continue
            lines = range(field.lineno - 1, (field.end_lineno or field.lineno) + 1)
            has_docstring = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            # A comment at the end of the line above belongs to the field above.
            own = {
                n
                for n in lines
                if n >= field.lineno or source.text.splitlines()[n - 1].lstrip().startswith("#")
            }
            if not has_docstring and not comments & own:
                yield source.at(
                    field.lineno, f"{cls.name}.{ast.unparse(field.target)} has no word on what it is"
                )


def sleeps(source: Source) -> Iterator[str]:
    """Calls of anything named sleep, but ``sleep(0)``, which only lets others run."""
    within: dict[int, str] = {}
    for node in ast.walk(source.tree):  # outer functions come first: the innermost name stays
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            within.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.name))
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        yields_only = [ast.unparse(argument) for argument in node.args] == ["0"]
        place = f"{source.path}::{within.get(node.lineno, '')}"
        if name == "sleep" and not yields_only and place not in SLEEPS:
            yield source.at(
                node.lineno, f"a test that sleeps; wait on a condition, or justify {place} in SLEEPS"
            )


Rule = Callable[[Source], Iterator[str]]
RULES: list[tuple[Rule, tuple[str, ...]]] = [
    (wrong_directions, ("raftkv",)),
    (impurities, ("raftkv",)),
    (prints, ("raftkv",)),
    (missing_docstrings, ("raftkv", "scripts/drills")),
    (long_files, ("raftkv", "tests", "scripts/drills")),
    (long_functions, ("raftkv", "tests", "scripts/drills")),
    (shapeless_names, ("raftkv", "tests", "scripts/drills")),
    (undocumented_fields, ("raftkv/config.py",)),
    (sleeps, ("tests",)),
]


@pytest.mark.parametrize(("rule", "places"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_house(rule: Rule, places: tuple[str, ...]) -> None:
    files = [s for place in places for s in sources_at(place)]
    assert files, f"nothing at {places}"
    complaints = [complaint for source in files for complaint in rule(source)]
    assert not complaints, "\n" + "\n".join(complaints)


def sources_at(place: str) -> list[Source]:
    if place.endswith(".py"):
        return [Source(place, (ROOT / place).read_text(encoding="utf-8"))]
    return sources(place)


# What each rule must complain of: (rule, path, text).
BROKEN: list[tuple[Rule, str, str]] = [
    (wrong_directions, "raftkv/consensus/node.py", "from raftkv.storage.wal import Wal"),
    (wrong_directions, "raftkv/consensus/node.py", "import raftkv.errors"),
    (wrong_directions, "raftkv/consensus/node.py", "from raftkv import kv"),
    (wrong_directions, "raftkv/consensus/node.py", "from ..wire import codec"),
    (wrong_directions, "raftkv/consensus/__init__.py", "from ..kv import store"),
    (wrong_directions, "raftkv/consensus/node.py", "def f():\n    import raftkv.server.driver"),
    (wrong_directions, "raftkv/kv/store.py", "from raftkv.consensus.node import Node"),
    (wrong_directions, "raftkv/kv/store.py", "from raftkv.consensus.types_of_another import Index"),
    (wrong_directions, "raftkv/wire/codec.py", "from raftkv.replica import Replica"),
    (wrong_directions, "raftkv/api/kv.py", "from raftkv.storage.wal import Wal"),
    (wrong_directions, "raftkv/server/app.py", "from raftkv.cli.main import main"),
    (wrong_directions, "raftkv/sim/world.py", "from raftkv.cli.main import main"),
    (wrong_directions, "raftkv/verify/history.py", "from raftkv.kv.store import Store"),
    (wrong_directions, "raftkv/newroom/thing.py", ""),
    (impurities, "raftkv/consensus/node.py", "import asyncio"),
    (impurities, "raftkv/consensus/node.py", "from random import Random"),
    (impurities, "raftkv/consensus/node.py", "import msgpack"),
    (impurities, "raftkv/consensus/node.py", "order = sorted(nodes, key=lambda n: hash(n))"),
    (impurities, "raftkv/kv/store.py", "import os.path"),
    (impurities, "raftkv/kv/store.py", "from time import monotonic"),
    (impurities, "raftkv/replica.py", "import structlog"),
    (prints, "raftkv/server/app.py", "print('hello')"),
    (missing_docstrings, "raftkv/server/app.py", "import os"),
    (long_files, "raftkv/server/app.py", "\n" * (MAX_FILE_LINES + 1)),
    (long_functions, "raftkv/server/app.py", "async def f():\n" + "    pass\n" * MAX_FUNCTION_LINES),
    (shapeless_names, "raftkv/server/utils.py", ""),
    (shapeless_names, "raftkv/common/__init__.py", ""),
    (undocumented_fields, "raftkv/config.py", "class Config:\n    a_ms: int  # ms\n    b: str\n"),
    (
        undocumented_fields,
        "raftkv/config.py",
        "class Config:\n    a: int\n    'Milliseconds.'\n    b: int = 1  #",
    ),
    (sleeps, "tests/test_x.py", "import time as t\nt.sleep(0.1)"),
    (sleeps, "tests/test_x.py", "async def f():\n    await asyncio.sleep(0.0)"),
    (sleeps, "tests/test_x.py", "from asyncio import sleep\nsleep(n)"),
]

# ... and what none of them may complain of.
SOUND: list[tuple[Rule, str, str]] = [
    (wrong_directions, "raftkv/kv/store.py", "from raftkv.consensus.types import Index"),
    (
        wrong_directions,
        "raftkv/replica.py",
        "from raftkv.ports import Service\nfrom raftkv.kv import machine",
    ),
    (wrong_directions, "raftkv/cli/simulate.py", "import raftkv.sim.world, raftkv.verify.history, raftkv"),
    (wrong_directions, "raftkv/api/__init__.py", "from .kv import handlers\nfrom raftkv import __version__"),
    (wrong_directions, "raftkv/config.py", "from raftkv.errors import StartError"),
    (impurities, "raftkv/kv/store.py", "import msgpack\nfrom collections.abc import Mapping"),
    (impurities, "raftkv/storage/wal.py", "import os, time"),
    (prints, "raftkv/cli/status.py", "print('hello')"),
    (long_functions, "raftkv/server/app.py", "def f():\n" + "    pass\n" * (MAX_FUNCTION_LINES - 1)),
    (
        undocumented_fields,
        "raftkv/config.py",
        "class C:\n    # Milliseconds.\n    a: int\n    b: int\n    'Bytes.'",
    ),
    (sleeps, "tests/test_x.py", "async def f():\n    await asyncio.sleep(0)"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_broken_rule_is_found(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(Source(path, text)))) == 1


@pytest.mark.parametrize(("rule", "path", "text"), SOUND)
def test_sound_code_is_left_alone(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_listed_sleeps_exist() -> None:
    """A justification whose sleep is gone goes too."""
    for place in SLEEPS:
        path, function = place.split("::")
        listed = Source(path, (ROOT / path).read_text(encoding="utf-8"))
        found = [node for node in ast.walk(listed.tree) if getattr(node, "name", None) == function]
        assert any("sleep(" in ast.unparse(node) for node in found), place
