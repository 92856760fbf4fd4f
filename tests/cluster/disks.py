"""Bad disks for a node: a limit on its files, a full filesystem, and fsyncs that fail, dawdle or kill.

Rules: what this machine can't do is skipped with the reason, loudly (``-ra`` shows it), never passed.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.harness import Node


def limit_files(node: Node, more_bytes: int) -> None:
    """From now on no file of the running node may grow more than this beyond its largest segment."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("NOT TESTED: this system has no prlimit, so no full disk (Linux has)")
    largest = max(path.stat().st_size for path in (*node.data_dir.glob("*.log"), node.log_path))
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (largest + more_bytes, hard))


@contextmanager
def small_filesystem(directory: Path, size: str) -> Iterator[None]:
    """A tmpfs of ``size`` at ``directory``."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a full filesystem needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def grow_filesystem(directory: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(directory)], check=True)


def strace(directory: Path, injection: str) -> list[str]:
    """A wrapper for ``Node.start`` that does ``injection`` to the node's fdatasync calls.

    Counted by thread, as strace does: the first is in the main thread (the log is rewritten at a start), the
    others are the disk thread's.
    """
    # -D: the tracer is the grandchild, so that the process that was started is the node itself.
    command = ["strace", "-D", "-f", "-qq", "-o", str(directory / "strace.out"), "-e", "trace=fdatasync"]
    if not injection.startswith(
        "signal="
    ):  # NB: strace injects no signals then; without, a start takes a second
        command.append("--seccomp-bpf")
    command += ["-e", f"inject=fdatasync:{injection}"]
    _need_strace(directory)
    return command


def _need_strace(directory: Path) -> None:
    """Skip where strace is missing, can't trace or can't inject: seen by an fdatasync made to fail."""
    if shutil.which("strace") is None:
        pytest.skip("NOT TESTED: no strace here, so no failing fsync (apt install strace)")
    if not hasattr(os, "fdatasync"):
        pytest.skip("NOT TESTED: this system has no fdatasync")
    probe = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
    probe += "try: os.fdatasync(fd)\nexcept OSError: sys.exit(42)"
    command = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO",
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", probe, str(directory / "probe")], capture_output=True, check=False
    )
    if done.returncode != 42:
        pytest.skip(f"NOT TESTED: strace can't inject here: {done.stderr.decode()[:200]}")
