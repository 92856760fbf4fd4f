"""Commands in process, against one node's real REST server and an endpoint where nobody listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from click.testing import CliRunner, Result

from raftkv.cli import main
from tests.api.node import RestNode
from tests.cli.stub import dead_url

DEADLINE_S = 20.0


def url(node: RestNode) -> str:
    return f"http://127.0.0.1:{node.port}"


def run(node: RestNode, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"RAFTKV_ENDPOINTS": f"{dead_url()},{url(node)}"})


@contextmanager
def started(node: RestNode, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own, which ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "raftkv", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "RAFTKV_ENDPOINTS": f"{dead_url()},{url(node)}"},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def says(process: subprocess.Popen[bytes]) -> bytes:
    """Its next line, or its last words."""
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout.readline() or process.stderr.read()
