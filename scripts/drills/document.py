"""docs/benchmarks.md: each drill that compares writes its own section of it, between its own two marks."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from harness import DrillError

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def write_section(script: str, parts: Sequence[str]) -> None:
    """Replace what stands between the marks of ``script``. Raises DrillError where they aren't."""
    begin, end = f"<!-- {script}: begin -->\n", f"<!-- {script}: end -->\n"
    before, found_begin, rest = DOCUMENT.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise DrillError(f"{DOCUMENT} has no place for the tables: {begin.strip()} and {end.strip()}")
    DOCUMENT.write_text(before + begin + "\n" + "\n".join(parts) + "\n" + end + after)


def circumstances(what: str) -> str:
    """One line: the day, the machine, ``what`` was run on it, how busy it is now."""
    return (
        f"{time.strftime('%Y-%m-%d')}; {_processor()}, {os.cpu_count()} cores shared by stores and load, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; "
        f"{what}; load average at the end {os.getloadavg()[0]:.1f}.\n"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
