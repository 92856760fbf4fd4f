"""The commands against ``raftkv local`` with real nodes: nothing here is a stub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftkv.cli import main
from raftkv.cli.observation import NodeView, leader_of
from raftkv.cli.polling import look_at_all
from raftkv.client import Endpoint
from tests.cli.test_local import DEADLINE_S, ROOT, Local, free_ports

pytestmark = pytest.mark.cluster
KEYS = ["a/b", ".", "..", "a/../b", "//", "ke y", "100%", "é", "\udcff\udcfe", "?x=1", "#", "%2F"]


def run(local: Local, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes]:
    endpoints = ",".join(f"http://127.0.0.1:{local.first + n}" for n in range(3))
    result = CliRunner().invoke(main, list(arguments), env={"RAFTKV_ENDPOINTS": endpoints}, input=stdin)
    return result.exit_code, result.stdout_bytes


def leader(local: Local) -> str | None:
    looks = look_at_all([Endpoint("127.0.0.1", local.first + n) for n in range(3)], DEADLINE_S)
    view = leader_of([NodeView(str(look.endpoint), None, look.report, None, 0.0) for look in looks])
    return str(view.report["node"]) if view is not None and view.report is not None else None


def test_a_cluster_used_broken_and_stopped(tmp_path: Path) -> None:
    first = free_ports(3)
    with subprocess.Popen(
        [sys.executable, "-m", "raftkv", "local", "--port", str(first)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            local = Local(process, first)
            pids = local.pids(local.introduction())
            for key in KEYS:
                assert run(local, "put", key, stdin=key.encode("utf-8", "surrogateescape"))[0] == 0
            for key in KEYS:
                assert run(local, "get", key) == (0, key.encode("utf-8", "surrogateescape"))
            assert len(run(local, "list", "--keys-only")[1].splitlines()) == len(KEYS)
            assert run(local, "health", "--ready")[0] == 0

            dead = leader(local)
            assert dead is not None
            os.kill(pids[dead], signal.SIGKILL)
            # Killed, it refuses connections: the next endpoint takes the write, and waits for the new leader.
            assert f"{dead} (pid {pids[dead]}) was killed by SIGKILL" in local.stderr.readline()
            assert run(local, "put", "after", "the kill", "--if-absent")[0] == 0
            assert run(local, "get", "after") == (0, b"the kill")
            code, output = run(local, "status", "--output", "json")
            assert (code, sum(node["reachable"] for node in json.loads(output))) == (0, 2)

            other = next(name for name in pids if name != dead)
            os.kill(pids[other], signal.SIGKILL)
            assert other in "".join(local.stderr.readline() for _ in range(3))
            # A follower has nobody to hand it to (4); a leader has begun it before it steps down (3).
            assert run(local, "put", "k", "v", "--timeout", "1s")[0] in (3, 4)
            assert run(local, "get", "after", "--timeout", "1s")[0] == 4
            assert run(local, "get", "after", "--consistency", "stale") == (0, b"the kill")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)
        assert process.returncode == 0
    for name in pids:
        assert run(local, "wal", "verify", str(tmp_path / "raftkv-data" / name))[0] == 0
