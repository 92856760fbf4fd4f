"""The README's curl lines, as written, against a real cluster (only the ports are this test's own)."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftkv.testing.cluster import port_range

README = (Path(__file__).parent.parent / "README.md").read_text()
START_DEADLINE_S = 30
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed"),
]


def curl_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("curl ")]


def free_ports(count: int) -> int:
    """The first of ``count`` neighbouring ports that are free, and whose neighbours 1000 above are, too."""
    low, high = port_range()
    for first in range(low, high - 1000 - count, count):
        try:
            for port in (*range(first, first + count), *range(first + 1000, first + 1000 + count)):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A cluster of three by ``raftkv local``; its first client port."""
    first = free_ports(3)
    directory = tmp_path_factory.mktemp("cluster")
    command = [sys.executable, "-m", "raftkv", "local", "--port", str(first), "--data-dir", str(directory)]
    with (directory / "out").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            retry = f"--retry 100 --retry-delay 0 --retry-all-errors --retry-max-time {START_DEADLINE_S}"
            ready = f"http://127.0.0.1:{first + 2}/readyz"
            subprocess.run(["curl", "-sf", *retry.split(), ready], check=True, capture_output=True)
            yield first
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_the_curl_lines_work_as_written(port: int) -> None:
    lines = curl_lines()
    assert len(lines) == 6, "a line was added or removed: say here what it must print"
    outputs = []
    for line in lines:
        mine = re.sub(r":800([123])", lambda match: f":{port + int(match[1]) - 1}", line)
        done = subprocess.run(
            mine.replace("curl ", "curl -sS ", 1), shell=True, capture_output=True, check=True
        )
        outputs.append(done.stdout.decode())
    put, get, page, conflict, cluster, again = outputs
    assert json.loads(put) == {"key": "hello", "revision": 1, "version": 1, "created": True}
    assert get == "world"
    assert [item["value"] for item in json.loads(page)["items"]] == ["world"]
    assert conflict.startswith("HTTP/1.1 412")
    assert '"mod_revision":1' in conflict
    members = json.loads(cluster)["members"]
    assert [member["node"] for member in members] == ["n1", "n2", "n3"]
    assert json.loads(again) == {"key": "hello", "revision": 2, "version": 2, "created": False}
