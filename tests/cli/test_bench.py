"""``raftkv bench`` against real nodes."""

from __future__ import annotations

import json

from click.testing import CliRunner

from raftkv import Client
from raftkv.cli import main


def test_it_puts_gets_and_leaves_nothing(raftkv_client: Client) -> None:
    endpoints = ",".join(raftkv_client.endpoints)
    arguments = ["bench", "--time", "500ms", "--clients", "4", "--keys", "5", "--endpoints", endpoints]
    result = CliRunner().invoke(main, [*arguments, "--output", "json"])
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert told["errors"] == {}
    assert told["seconds"] >= 0.5
    for kind in ("put", "get"):
        found = told[kind]
        assert found["requests"] >= 1
        assert found["per_second"] > 0
        assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert list(raftkv_client.scan("raftkv-bench/")) == []


def test_only_what_was_asked_for_is_shown(raftkv_client: Client) -> None:
    endpoints = ",".join(raftkv_client.endpoints)
    before = raftkv_client.read("nothing").revision
    result = CliRunner().invoke(
        main, ["bench", "--time", "200ms", "--reads", "0", "--keys", "2", "--endpoints", endpoints]
    )
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith("put  ")
    assert "/s  p50 " in line
    assert raftkv_client.read("nothing").revision > before + 2


def test_nobody_there_is_one_line() -> None:
    result = CliRunner().invoke(main, ["bench", "--timeout", "200ms", "--endpoints", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
