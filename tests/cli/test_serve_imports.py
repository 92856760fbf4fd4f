"""What ``raftkv serve`` imports before it reads its log: what it doesn't need costs each start, and takes
processor time from the nodes beside it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVE = """
import sys
from raftkv.cli import main
# NB: a data directory below a file: it ends where it would begin to read.
sys.argv = ["raftkv", "serve", "--id", "n1", "--data-dir", sys.executable + "/n1",
            "--log-format", sys.argv[1], "--cluster", "n1=127.0.0.1:9001"]
"""
LOOK = """
try:
    main()
except SystemExit as end:
    print(end.code, *sorted(sys.modules))
"""
STOPPED_AT = """
import os, signal
class Stopped:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Stopped())
main()
"""


def serve(then: str, log_format: str = "auto") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SERVE + then, log_format],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def imported(log_format: str) -> set[str]:
    done = serve(LOOK, log_format)
    code, *modules = done.stdout.split()
    assert code == "73", done.stderr
    return set(modules)


def test_a_node_imports_nothing_it_does_not_need() -> None:
    modules = imported("auto")  # no terminal here: JSON
    assert {"aiohttp", "raftkv.server.app", "raftkv.storage.wal"} <= modules, "it came as far as its log"
    foreign = {name.partition(".")[0] for name in modules} & {"rich", "pygments", "hypothesis", "pytest"}
    assert foreign == set()
    ours = {".".join(name.split(".")[:2]) for name in modules if name.startswith("raftkv.")}
    assert ours & {"raftkv.sim", "raftkv.verify", "raftkv.client"} == set()
    assert {name for name in modules if name.startswith("raftkv.cli.")} == {
        "raftkv.cli.group",
        "raftkv.cli.serve",
        "raftkv.cli.settings",
    }


def test_a_terminal_gets_its_colours() -> None:
    assert "rich.traceback" in imported("console")


@pytest.mark.parametrize("module", ["raftkv.config", "raftkv.server", "aiohttp"])
def test_told_to_stop_while_it_imports_it_ends_with_0(module: str) -> None:
    done = serve(STOPPED_AT.format(module=module))
    assert (done.returncode, done.stderr) == (0, "")
