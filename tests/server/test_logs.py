"""What the process logs: whatever is said, by whom and on which thread, is one JSON object a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a process of its own: logging is set up once in a process, and for good.
TALK = """
import logging, sys, threading
import structlog
from raftkv.server import logs

logger = structlog.get_logger("raftkv.before")
logs.configure(sys.argv[1], sys.argv[2], "n1")
logger.debug("debug")
logger.info("info", peer="n2", value=b"\\xff", text="two\\nlines, a snowman \\u2603")
thread = threading.Thread(target=logger.warning, args=("from a thread",))
thread.start()
thread.join()
try:
    raise ValueError("the reason")
except ValueError as error:
    logger.exception("failed")
    logger.error("the node stops", exc_info=error)
    logging.getLogger("aiohttp.server").exception("a library failed")
logging.getLogger("aiohttp.server").info("a library talks")
logging.getLogger("asyncio").warning("slow: %d ms", 7)
"""


def said(level: str, log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", TALK, level, log_format],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
        check=True,
        text=True,
    )
    assert done.stdout == "", "stdout is for what was asked for"
    return done.stderr.splitlines()


def test_json_lines() -> None:
    lines = [json.loads(line) for line in said("info", "auto")]  # no terminal here: JSON
    assert [(line["event"], line["level"]) for line in lines] == [
        ("info", "info"),
        ("from a thread", "warning"),
        ("failed", "error"),
        ("the node stops", "error"),
        ("a library failed", "error"),
        ("slow: 7 ms", "warning"),
    ]
    assert all(line["node"] == "n1" for line in lines)
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["peer"] == "n2"
    assert lines[0]["text"] == "two\nlines, a snowman \u2603"
    assert all("the reason" in line["exception"] for line in lines[2:5])
    assert lines[5]["logger"] == "asyncio"


def test_the_level_is_kept() -> None:
    events = [json.loads(line)["event"] for line in said("error", "json")]
    assert events == ["failed", "the node stops", "a library failed", "slow: 7 ms"]


def test_console_lines_are_for_people() -> None:
    text = "\n".join(said("debug", "console"))
    for words in ("debug", "from a thread", "the reason", "a library failed"):
        assert words in text
    assert not text.startswith("{")
