"""``raftkv status`` over sockets: once, as JSON, discovering, and watching until it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import main
from tests.cli.stub import CUT, HANG, Stub, dead_url, running
from tests.cli.test_observation import report


def run(*arguments: str, endpoints: str) -> Result:
    return CliRunner().invoke(main, ["status", "--timeout", "300ms", *arguments, "--endpoints", endpoints])


def leader() -> Stub:
    return Stub("n1", status=report("n1", "leader", 3, "n1"))


def follower(**more: Any) -> Stub:
    return Stub("n2", status=report("n2", "follower", 3, "n1"), **more)


def test_a_line_a_node_dead_ones_too() -> None:
    with running(follower(), leader(), Stub(fail=CUT), Stub(fail=HANG)) as (two, one, cut, mute):
        result = run(endpoints=f"{two.url},{one.url},{cut.url},{mute.url},{dead_url()}")
        assert result.exit_code == 0
        rows = [line.split()[:2] for line in result.stdout.splitlines()]
        assert rows[:3] == [["NODE", "ROLE"], ["n1", "leader"], ["n2", "follower"]]
        assert [row[1] for row in rows[3:]] == ["unreachable"] * 3


def test_json_has_what_the_nodes_said() -> None:
    dead = dead_url()
    with running(leader()) as (one,):
        first, second = json.loads(run("--output", "json", endpoints=f"{one.url},{dead}").stdout)
        assert first == {"endpoint": one.url, "reachable": True, **one.status}
        assert second == {"endpoint": dead, "reachable": False, "node": None, "error": "connection refused"}


def test_exit_codes() -> None:
    with running(follower()) as (two,):
        assert run(endpoints=two.url).exit_code == 4
    assert run(endpoints=dead_url()).exit_code == 1


def test_discover_asks_the_advertised_urls_too() -> None:
    with running(leader(), follower()) as (one, two):
        two.members = [
            {"node": "n1", "url": one.url},
            {"node": "n2", "url": two.url},
            {"node": "n3", "url": None},
        ]
        nodes = json.loads(run("--discover", "--output", "json", endpoints=two.url).stdout)
        assert [node["node"] for node in nodes] == ["n2", "n1"]
        assert len(json.loads(run("--output", "json", endpoints=two.url).stdout)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_watch_in_a_pipe_tells_events_until_it_is_stopped(number: signal.Signals) -> None:
    with running(leader(), follower()) as (one, two):
        with subprocess.Popen(
            [sys.executable, "-m", "raftkv", "status", "--watch", "--endpoints", f"{one.url},{two.url}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as watch:
            assert watch.stdout is not None
            assert watch.stderr is not None
            assert watch.stdout.readline().endswith(b"n1 leads, term 3\n")
            two.status = report("n2", "leader", 4, "n2")
            assert b"n2 leads, term 4 (n1 was last seen" in watch.stdout.readline()
            one.fail = CUT
            assert b"n1 does not answer: the connection was closed" in watch.stdout.readline()
            watch.send_signal(number)
            assert watch.stdout.read() == b""
            assert watch.stderr.read() == b""
        assert watch.returncode == 0
