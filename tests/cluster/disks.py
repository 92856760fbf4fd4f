"""Bad disks for a node: a limit on its files, a full filesystem, and fsyncs that fail, dawdle or kill.

Rules: what this machine can't do is skipped with the reason, loudly (``-ra`` shows it), never passed.
"""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.abilities import injecting, mount, unmount, why_no_strace
from tests.cluster.harness import Node


def limit_files(node: Node, more_bytes: int) -> Callable[[], None]:
    """From now on no file of the running node may grow more than this beyond its largest segment; until what
    is returned is called.
    """
    if not hasattr(resource, "prlimit"):
        pytest.skip("NOT TESTED: this system has no prlimit, so no full disk (Linux has)")
    largest = max(path.stat().st_size for path in (*node.data_dir.glob("*.log"), node.log_path))
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (largest + more_bytes, hard))
    return lambda: _lift(node.pid, hard)


def _lift(pid: int, limit: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))


@contextmanager
def small_filesystem(directory: Path, size: str) -> Iterator[None]:
    """A tmpfs of ``size`` at ``directory``."""
    if why := mount(directory, size):
        pytest.skip(f"NOT TESTED: {why}")
    try:
        yield
    finally:
        unmount(directory)


def grow_filesystem(directory: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(directory)], check=True)


def strace(directory: Path, injection: str) -> list[str]:
    """A wrapper for ``Node.start`` that does ``injection`` to the node's fdatasync calls.

    Counted by thread, as strace does: the first is in the main thread (the log is rewritten at a start), the
    others are the disk thread's.
    """
    if why := why_no_strace(directory):
        pytest.skip(f"NOT TESTED: {why}")
    # -D: the tracer is the grandchild, so that the process that was started is the node itself.
    command = ["strace", "-D", "-f", *injecting(injection, directory / "strace.out")]
    if not injection.startswith(
        "signal="
    ):  # NB: strace injects no signals then; without, a start takes a second
        command.append("--seccomp-bpf")
    return command
