"""What this machine can do to disks, asked before it is done: strace's injections, small filesystems.

Each question is answered by the reason why not, or None. Must not know pytest: drills ask, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def why_no_strace(directory: Path, *, attach: bool = False) -> str | None:
    """Whether strace can inject here, seen by an fdatasync made to fail; ``attach``: into what runs."""
    if shutil.which("strace") is None:
        return "no strace here, so no failing fsync (apt install strace)"
    if not hasattr(os, "fdatasync"):
        return "this system has no fdatasync"
    probe = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
    probe += "try: os.fdatasync(fd)\nexcept OSError: sys.exit(42)"
    command = ["strace", "-f", "--seccomp-bpf", *injecting("error=EIO", Path(os.devnull))]
    done = subprocess.run(
        [*command, sys.executable, "-c", probe, str(directory / "probe")], capture_output=True, check=False
    )
    if done.returncode != 42:
        return f"strace can't inject here: {done.stderr.decode()[:200]}"
    if attach and (why := _why_no_attach()):
        return f"strace can't attach to a running process here: {why}"
    return None


def _why_no_attach() -> str | None:
    """A process that waits for the end of its input is attached to, and then ended."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as target:
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", os.devnull, "-p", str(target.pid)], stderr=subprocess.PIPE
        )
        assert tracer.stderr is not None
        said = tracer.stderr.readline().decode()  # "Process N attached", or why not
        assert target.stdin is not None
        target.stdin.close()
        target.wait()
        tracer.communicate()
    return None if "attached" in said else said


def injecting(injection: str, output: Path) -> list[str]:
    """strace's options that do ``injection`` to every fdatasync, and write what it traces to ``output``."""
    return ["-qq", "-o", str(output), "-e", "trace=fdatasync", "-e", f"inject=fdatasync:{injection}"]


def mount(directory: Path, size: str) -> str | None:
    """A tmpfs of ``size`` at ``directory``, which is made; why not, if not. See ``unmount``."""
    directory.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        return "a full filesystem needs root and the right to mount"
    return None


def unmount(directory: Path) -> None:
    subprocess.run(["umount", "-l", str(directory)], check=True)
