"""``raftkv local`` starts, introduces, watches and stops its children; stub nodes stand in for real ones."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftkv.testing.cluster import port_range

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0
LOCAL = """
import sys
from raftkv.cli import local, main, processes
processes.PROGRAM = (sys.executable, "-m", "tests.cli.stub_serve")
local.START_S = float(sys.argv.pop(1))
main(prog_name="raftkv")
"""


def free_ports(count: int) -> int:
    """The first of ``count`` consecutive ports that are free, and so are those 1000 above."""
    for _ in range(100):
        low, high = port_range()
        first = random.randrange(low, high - 1_000 - count)
        try:
            for port in range(first, first + count):
                for number in (port, port + 1_000):
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


class Local:
    """A running ``raftkv local``; ``first`` is its first port."""

    def __init__(self, process: subprocess.Popen[str], first: int) -> None:
        self.process = process
        self.first = first
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout, self.stderr = process.stdout, process.stderr

    def introduction(self) -> str:
        lines = []
        for line in self.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        return "".join(lines)

    def pids(self, introduction: str) -> dict[str, int]:
        found = re.findall(r"^(n\d)\s+\w+\s+\S+\s+\d+\s+(\d+)", introduction, re.MULTILINE)
        return {name: int(pid) for name, pid in found}

    def finish(self) -> tuple[int, str]:
        stderr = self.stderr.read()
        return self.process.wait(), stderr


@contextmanager
def running(
    tmp_path: Path, *arguments: str, start_s: float = DEADLINE_S, **environment: str
) -> Iterator[Local]:
    first = free_ports(3)
    with subprocess.Popen(
        [sys.executable, "-c", LOCAL, str(start_s), "local", "--port", str(first), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        overdue = threading.Timer(DEADLINE_S, process.send_signal, [signal.SIGTERM])
        overdue.start()
        try:
            yield Local(process, first)
        finally:
            overdue.cancel()
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_it_starts_all_introduces_them_and_stops_all(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as local:
        told = local.introduction()
        pids = local.pids(told)
        assert list(pids) == ["n1", "n2", "n3"]
        url = f"http://127.0.0.1:{local.first}"
        assert f"curl -X PUT --data-binary hello {url}/v1/kv/greeting\n" in told
        assert f"--endpoints {url},http://127.0.0.1:{local.first + 1},http" in told
        assert re.search(
            rf"^n1 +leader +{url} +{local.first + 1_000} +{pids['n1']} +raftkv-data/n1 ", told, re.M
        )
        assert f"kill -9 {pids['n1']} " in told
        os.killpg(
            local.process.pid, number
        )  # a terminal's Ctrl-C reaches the whole group: the nodes have their own
        assert local.finish() == (0, "stopped; the data is in raftkv-data\n")
        assert not any(map(alive, pids.values()))
        log_text = (tmp_path / "raftkv-data" / "n2.log").read_text()
        assert log_text == "n2 starts in raftkv-data/n2\nn2 stops\n"


def test_the_curl_lines_work_as_pasted(tmp_path: Path) -> None:
    with running(tmp_path, "--nodes", "1") as local:
        lines = [line.strip() for line in local.introduction().splitlines() if line.startswith("  curl")]
        assert len(lines) == 2
        for line in lines:
            done = subprocess.run(f"{line} -sS -f", shell=True, capture_output=True, check=True)
        assert done.stdout == b"hello"


def test_a_death_is_reported_with_the_way_back_and_not_repaired(tmp_path: Path) -> None:
    with running(tmp_path) as local:
        pids = local.pids(local.introduction())
        os.kill(pids["n2"], signal.SIGKILL)
        assert local.stderr.readline() == f"n2 (pid {pids['n2']}) was killed by SIGKILL.\n"
        assert local.stderr.readline() == "Start it again (then it is yours to stop):\n"
        command = local.stderr.readline().split()
        assert command[-7] == "--id=n2"
        with subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
        ) as again:
            assert again.stderr is not None
            assert again.stderr.readline() == b"n2 starts in raftkv-data/n2\n"
            again.kill()
        os.kill(pids["n1"], signal.SIGKILL)
        os.kill(pids["n3"], signal.SIGKILL)
        code, rest = local.finish()
        assert code == 1
        assert "no node is left" in rest


def test_a_node_that_cannot_start_ends_it_with_the_reason(tmp_path: Path) -> None:
    with running(tmp_path, STUB_DIES="n2") as local:
        code, stderr = local.finish()
        assert code == 1
        assert "n2 (pid " in stderr
        assert "ended with exit code 74" in stderr
        assert "the disk is full: free some space" in stderr
        assert local.stdout.read() == ""


def test_no_leader_in_time_ends_it(tmp_path: Path) -> None:
    with running(tmp_path, start_s=0.1, STUB_LEADERLESS="1") as local:
        code, stderr = local.finish()
        assert code == 1
        assert "no leader after" in stderr


def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    with running(tmp_path, STUB_DEAF="n3") as local:
        pids = local.pids(local.introduction())
        local.process.send_signal(signal.SIGINT)
        while alive(pids["n1"]) or alive(pids["n2"]):  # once both are gone, it waits for n3
            assert local.process.poll() is None
        local.process.send_signal(signal.SIGINT)
        code, stderr = local.finish()
        assert (code, stderr.splitlines()[0]) == (0, "killed, since they did not stop: n3")
        assert not alive(pids["n3"])


def test_logs_on_stderr_have_the_nodes_name(tmp_path: Path) -> None:
    with running(tmp_path, "--logs", "--data-dir", "d") as local:
        local.introduction()
        local.process.send_signal(signal.SIGTERM)
        code, stderr = local.finish()
        assert code == 0
        assert {f"n{n} | n{n} {what}" for n in (1, 2, 3) for what in (f"starts in d/n{n}", "stops")} <= set(
            stderr.splitlines()
        )
        assert not list(tmp_path.glob("d/*.log"))


def test_a_directory_of_another_cluster_size_is_refused(tmp_path: Path) -> None:
    for name in ("n1", "n2", "n3"):
        (tmp_path / "raftkv-data" / name).mkdir(parents=True)
    with running(tmp_path, "--nodes", "5") as local:
        code, stderr = local.finish()
        assert code == 1
        assert "holds a cluster of 3: give --nodes 3" in stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with running(tmp_path) as one:
        one.introduction()
        taken = one.first + 1
        done = subprocess.run(
            [sys.executable, "-m", "raftkv", "local", "--port", str(taken), "--data-dir", "other"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"in use: port {taken}, {taken + 1}." in done.stderr
        assert not (tmp_path / "other").exists()
