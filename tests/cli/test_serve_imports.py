"""What ``raftkv serve`` imports before it reads its log: what it doesn't need costs each start, and takes
processor time from the nodes beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUND = ("--cluster", "n1=127.0.0.1:9001")
JOIN = ("--advertise-peer", "127.0.0.1:9001", "--join")
# NB: a data directory below a file: it ends where it would begin to read.
SERVE = """
import gc, json, os, signal, sys
from raftkv.cli import main
sys.argv = ["raftkv", "serve", "--id", "n1", "--data-dir", sys.executable + "/n1", *sys.argv[1:]]
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {do}
sys.meta_path.insert(0, Watch())
"""
REPORT = """
told = lambda: {"certificates": os.environ.get("SSL_CERT_FILE"), "collects": gc.isenabled()}
try:
    main()
except SystemExit as end:
    print(json.dumps({"code": end.code, "modules": list(sys.modules), "then": then, "now": told()}))
"""


def serve(module: str, do: str, end: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SERVE.format(module=module, do=do) + end, *arguments],
        cwd=ROOT,
        env={**os.environ, "SSL_CERT_FILE": "/the/certificates"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def imported(*arguments: str) -> dict[str, object]:
    """What there was when aiohttp's client was imported (``then``), and at the end."""
    done = serve("aiohttp.connector", "global then; then = told()", REPORT, *arguments)
    assert done.stdout, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    assert report["code"] == 73, done.stderr
    return report


def modules_of(report: dict[str, object]) -> set[str]:
    found = report["modules"]
    assert isinstance(found, list)
    return set(found)


def test_a_node_imports_nothing_it_does_not_need() -> None:
    report = imported(*FOUND)  # no terminal here: JSON
    modules = modules_of(report)
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
    assert report["then"] == {"certificates": os.devnull, "collects": False}
    assert report["now"] == {"certificates": "/the/certificates", "collects": True}, "all is as it was"


def test_a_terminal_gets_its_colours() -> None:
    assert "rich.traceback" in modules_of(imported(*FOUND, "--log-format", "console"))


@pytest.mark.parametrize(
    ("url", "certificates"), [("https://n2.example", "/the/certificates"), ("http://n2:8001", os.devnull)]
)
def test_who_joins_by_https_has_the_certificates(url: str, certificates: str) -> None:
    then = imported(*JOIN, url)["then"]
    assert isinstance(then, dict)
    assert then["certificates"] == certificates


@pytest.mark.parametrize("module", ["raftkv.config", "raftkv.server", "aiohttp"])
def test_told_to_stop_while_it_imports_it_ends_with_0(module: str) -> None:
    done = serve(module, "os.kill(os.getpid(), signal.SIGTERM)", "main()", *FOUND)
    assert (done.returncode, done.stderr) == (0, "")
