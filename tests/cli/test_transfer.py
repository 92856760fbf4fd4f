"""``raftkv transfer``: who leads then, or why not."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from raftkv.cli import main
from tests.cli.stub import CUT, Stub, dead_url, problem, running


def transfer(*arguments: str, endpoints: str) -> Result:
    return CliRunner().invoke(main, ["transfer", *arguments, "--endpoints", endpoints])


def test_to_a_node_and_to_any() -> None:
    with running(Stub()) as (node,):
        result = transfer("n2", endpoints=f"{dead_url()},{node.url}")
        assert (result.exit_code, result.output) == (0, "n2 leads (term 7)\n")
        result = transfer("--output", "json", endpoints=node.url)
        assert (result.exit_code, json.loads(result.output)) == (0, {"leader": "n3", "term": 7})
        assert node.bodies == [{"id": "n2"}, {}]


def test_a_stranger_is_refused() -> None:
    stranger = problem(400, "bad_request", "'n9' is no member of this cluster", "not_applied")
    with running(Stub(fail=stranger), Stub()) as (one, two):
        result = transfer("n9", endpoints=f"{one.url},{two.url}")
        assert (result.exit_code, result.output) == (1, "Error: 'n9' is no member of this cluster\n")
        assert two.asked == []


def test_nobody_could_try() -> None:
    nobody = problem(503, "no_quorum", "no leader is known that could hand over", "not_applied")
    with running(Stub(fail=nobody), Stub(fail=nobody)) as (one, two):
        result = transfer(endpoints=f"{one.url},{two.url}")
        assert result.exit_code == 4
        assert "no leader is known that could hand over" in result.output
        assert len(one.asked) == len(two.asked) == 1


def test_tried_and_not_done_in_time() -> None:
    late = problem(504, "timeout", "n2 did not take over in time", "unknown")
    for failure in (late, CUT):
        with running(Stub(fail=failure), Stub()) as (one, two):
            result = transfer("n2", endpoints=f"{one.url},{two.url}")
            assert result.exit_code == 3
            assert result.output.startswith(f"Error: {one.url}: ")
            assert result.output.endswith(" (it may yet happen: see raftkv status)\n")
            assert "write" not in result.output
            assert two.asked == [], "tried once: it holds up the writes"


def test_who_answers_is_no_node() -> None:
    with running(Stub(fail=(200, b"<html>"))) as (node,):
        result = transfer(endpoints=node.url)
        assert result.exit_code == 1
        assert "is it a raftkv node?" in result.output
