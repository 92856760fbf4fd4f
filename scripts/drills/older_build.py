"""A build of an older revision: its sources from git, in an environment of its own."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

from harness import DrillError, say

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_DEADLINE_S = 600.0


def make_older(revision: str, place: Path) -> Path:
    """Build ``revision`` below ``place``, which must be there; its ``raftkv`` command. A minute or two: its
    dependencies are installed, from wherever pip gets them.
    """
    sources, environment = place / "sources", place / "environment"
    told = _run("git", "-C", str(REPOSITORY), "log", "-1", "--format=%h of %as: %s", revision, "--")
    say(f"building {told.decode().strip()}")
    archive = _run("git", "-C", str(REPOSITORY), "archive", "--format=tar", revision)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(sources, filter="data")
    _run(sys.executable, "-m", "venv", str(environment))
    _run(
        *(str(environment / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
        str(sources),
    )
    return environment / "bin/raftkv"


def _run(*command: str) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=BUILD_DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise DrillError(f"{' '.join(command)}: {problem}") from problem
    if done.returncode:
        raise DrillError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-1000:]}")
    return done.stdout
