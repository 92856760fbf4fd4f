"""``raftkv health``: what Docker asks every ten seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from raftkv.cli import main
from tests.cli.stub import CUT, HANG, Stub, dead_url, running


def health(*arguments: str, endpoints: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["health", *arguments], env={"RAFTKV_ENDPOINTS": endpoints})
    return result.exit_code, result.output


def test_alive_without_a_quorum_but_not_ready() -> None:
    with running(Stub(ready=False), Stub()) as (one, two):
        both = f"{one.url},{two.url}"
        assert health(endpoints=both) == (0, f"{one.url} is alive\n")
        assert health("--ready", endpoints=both) == (1, f"Error: {one.url} is not ready: no quorum\n")
        assert health("--ready", endpoints=two.url) == (0, f"{two.url} is ready\n")
        assert one.asked == ["GET /livez", "GET /readyz"]


@pytest.mark.parametrize("fail", [CUT, HANG, (500, b"")], ids=str)
def test_sick(fail: str) -> None:
    with running(Stub(fail=fail), Stub()) as (one, two):
        code, output = health("--timeout", "200ms", endpoints=f"{one.url},{two.url}")
        assert code == 1
        assert output.startswith(f"Error: {one.url} is not alive: ")
        assert two.asked == []


def test_dead() -> None:
    assert health(endpoints=dead_url())[0] == 1


def test_a_health_check_imports_no_server_and_no_tables() -> None:
    code = """
import sys
from raftkv.cli import main
main(["health"], standalone_mode=False)
heavy = {"aiohttp", "rich", "asyncio", "orjson", "structlog", "raftkv.consensus"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    with running(Stub()) as (node,):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"RAFTKV_ENDPOINTS": node.url}, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
