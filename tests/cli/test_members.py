"""``raftkv members`` and ``raftkv member ...``: what is asked, what is shown, and the exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import main
from tests.cli.stub import CUT, Stub, dead_url, problem, running

PATH = "/v1/cluster/members"


def member_row(node: str, role: str, **more: Any) -> dict[str, Any]:
    row = {"id": node, "address": f"{node}:9001", "role": role, "match_index": 7, "lag": 0, "healthy": True}
    return {**row, **more}


LIST = [
    member_row("n1", "leader"),
    member_row("n2", "voter", match_index=None, lag=None, healthy=False),
    member_row("n4", "learner", match_index=3, lag=4, promote=True, replaces="n2"),
    member_row("n5", "learner", promote=False, replaces=None),
    member_row("n6", "learner", promote=True, replaces=None),
]


def run(*arguments: str, endpoints: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--endpoints", endpoints])


def test_the_table() -> None:
    with running(Stub(members=LIST)) as (node,):
        result = run("members", endpoints=f"{dead_url()},{node.url}")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "ID  ADDRESS  ROLE     MATCH  LAG  HEALTHY  NOTE",
        "n1  n1:9001  leader   7      0    yes      -",
        "n2  n2:9001  voter    -      -    no       -",
        "n4  n4:9001  learner  3      4    yes      replaces n2 once it has caught up",
        "n5  n5:9001  learner  7      0    yes      learns only",
        "n6  n6:9001  learner  7      0    yes      votes once it has caught up",
    ]


def test_json() -> None:
    with running(Stub(members=LIST)) as (node,):
        result = run("members", "--output", "json", endpoints=node.url)
    assert (result.exit_code, json.loads(result.output)["members"]) == (0, LIST)


CHANGES: list[tuple[tuple[str, ...], str, dict[str, Any] | None, str]] = [
    (
        ("add", "n4", "d:4"),
        f"POST {PATH}",
        {"id": "n4", "address": "d:4", "promote": True, "force": False},
        "n4 is a member; it votes once it has caught up",
    ),
    (
        ("add", "n4", "d:4", "--learner", "--force"),
        f"POST {PATH}",
        {"id": "n4", "address": "d:4", "promote": False, "force": True},
        "n4 is a member; it learns",
    ),
    (
        ("replace", "n2", "n4", "d:4"),
        f"POST {PATH}",
        {"id": "n4", "address": "d:4", "promote": True, "replaces": "n2", "force": False},
        "n4 is a member; once it has caught up it votes in the place of n2",
    ),
    (("promote", "n4"), f"POST {PATH}/n4/promote", None, "n4 votes"),
    (("promote", "n4", "--force"), f"POST {PATH}/n4/promote?force=true", None, "n4 votes"),
    (("remove", "n4"), f"DELETE {PATH}/n4", None, "n4 is no member"),
    (("remove", "n4", "--force"), f"DELETE {PATH}/n4?force=true", None, "n4 is no member"),
    (("move", "n4", "d:5"), f"PUT {PATH}/n4", {"address": "d:5"}, "n4 is found at d:5"),
]


@pytest.mark.parametrize(("arguments", "asked", "body", "says"), CHANGES)
def test_a_change(arguments: tuple[str, ...], asked: str, body: dict[str, Any] | None, says: str) -> None:
    with running(Stub(members=LIST)) as (node,):
        result = run("member", *arguments, endpoints=node.url)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[:2] == [says, "ID  ADDRESS  ROLE     MATCH  LAG  HEALTHY  NOTE"]
    (request,) = node.asked
    query = "&timeout=" if "?" in asked else "?timeout="
    assert request.startswith(asked + query)
    assert node.bodies == ([] if body is None else [body])


def test_a_change_as_json() -> None:
    with running(Stub(members=LIST)) as (node,):
        result = run("member", "remove", "n4", "--output", "json", endpoints=node.url)
    assert json.loads(result.output) == {"members": LIST, "index": 8}


@pytest.mark.parametrize(
    ("failure", "exit_code", "says"),
    [
        (problem(409, "change_refused", "n4 has not caught up", "not_applied"), 1, "n4 has not caught up"),
        (problem(503, "no_quorum", "no majority", "not_applied"), 4, "no majority"),
        (problem(504, "timeout", "not decided in time", "unknown"), 3, "asking again is safe"),
        (CUT, 3, "see raftkv members"),
        ((200, b"<html>"), 1, "is it a raftkv node?"),
    ],
    ids=["refused", "no quorum", "unknown", "cut", "no node"],
)
def test_exit_codes(failure: Any, exit_code: int, says: str) -> None:
    with running(Stub(fail=failure)) as (node,):
        result = run("member", "promote", "n4", endpoints=node.url)
    assert result.exit_code == exit_code, result.output
    assert says in result.output
    assert len(result.output.splitlines()) == 1


def test_usage() -> None:
    for arguments in (("add", "n4"), ("replace", "n2", "n4"), ("move", "n4"), ("demote", "n4")):
        assert run("member", *arguments, endpoints="http://127.0.0.1:1").exit_code == 2
