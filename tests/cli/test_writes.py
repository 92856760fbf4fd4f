"""A write goes to the next endpoint only when it definitely did not happen; else it ends as unknown."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import main
from tests.cli.stub import CUT, CUT_LATE, GARBAGE, HALF, HANG, HASTY, Stub, dead_url, problem, running

NO_LEADER = problem(503, "no_quorum", "no leader in 2000 ms", "not_applied")
STOPPING = problem(503, "shutting_down", "this node is stopping", "not_applied")
LEFT = problem(503, "no_quorum", "forwarded, then the leader was lost", "unknown")
LATE = problem(504, "timeout", "no answer in time", "unknown")


def run(*arguments: str, endpoints: str, timeout: str = "5s", **more: Any) -> Result:
    return CliRunner().invoke(main, [*arguments, "--endpoints", endpoints, "--timeout", timeout], **more)


def test_a_write_is_done_by_the_first_endpoint_that_takes_it() -> None:
    with running(Stub("n1"), Stub("n2")) as (one, two):
        result = run("put", "a/b", "hello", endpoints=f"{one.url},{two.url}")
        assert (result.exit_code, result.output) == (0, "created a/b (revision 1, version 1)\n")
        assert one.values == {b"a/b": (b"hello", 1, 1)}
        assert two.asked == []


def test_a_refused_connection_moves_on() -> None:
    with running(Stub()) as (node,):
        result = run("put", "k", "v", endpoints=f"{dead_url()},{dead_url()},{node.url}")
        assert result.exit_code == 0
        assert node.values[b"k"][0] == b"v"


@pytest.mark.parametrize("answer", [NO_LEADER, STOPPING], ids=["no leader", "stopping"])
@pytest.mark.parametrize("arguments", [("put", "k", "v"), ("delete", "k")], ids=["put", "delete"])
def test_a_503_that_was_not_applied_moves_on(answer: Any, arguments: tuple[str, ...]) -> None:
    with running(Stub(fail=answer), Stub()) as (one, two):
        result = run(*arguments, endpoints=f"{one.url},{two.url}")
        assert result.exit_code == 0
        assert len(one.asked) == len(two.asked) == 1


AMBIGUOUS: list[Any] = [
    CUT, CUT_LATE, HALF, GARBAGE, HANG, LEFT, LATE,
    (500, {"code": "internal", "detail": "a mistake", "outcome": "unknown"}),
    (502, b"<html>bad gateway</html>"),
    (503, b"<html>unavailable</html>"),
    (200, b"<html>hello</html>"),
]  # fmt: skip


@pytest.mark.parametrize("fail", AMBIGUOUS, ids=str)
@pytest.mark.parametrize("arguments", [("put", "k", "v"), ("delete", "k")], ids=["put", "delete"])
def test_anything_ambiguous_ends_as_unknown_and_is_never_sent_again(
    fail: Any, arguments: tuple[str, ...]
) -> None:
    with running(Stub(fail=fail), Stub()) as (one, two):
        result = run(*arguments, endpoints=f"{one.url},{two.url}", timeout="400ms" if fail == HANG else "5s")
        assert result.exit_code == 3, result.output
        assert "may have happened" in result.stderr
        assert result.stdout == ""
        assert len(one.asked) == 1
        assert two.asked == []


@pytest.mark.parametrize(
    "fail",
    [
        problem(413, "too_large", "the value has 2 bytes; at most 1 are allowed", "not_applied"),
        problem(429, "too_many_requests", "10000 wait here", "not_applied", retry_after_ms=50),
        problem(504, "timeout", "never left this node", "not_applied"),
    ],
    ids=["413", "429", "504"],
)
def test_a_refusal_is_not_taken_elsewhere(fail: tuple[int, dict[str, Any]]) -> None:
    with running(Stub(fail=fail), Stub()) as (one, two):
        result = run("put", "k", "v", endpoints=f"{one.url},{two.url}")
        assert result.exit_code == 1
        assert fail[1]["detail"] in result.stderr
        assert two.asked == []


def test_no_quorum_anywhere_is_4() -> None:
    with running(Stub(fail=NO_LEADER), Stub(fail=NO_LEADER)) as (one, two):
        result = run("put", "k", "v", endpoints=f"{one.url},{dead_url()},{two.url}")
        assert result.exit_code == 4
        assert result.stderr.count("\n") == 1
        assert "no leader in 2000 ms" in result.stderr


def test_nobody_there_is_1_and_says_who_was_asked() -> None:
    endpoints = [dead_url(), dead_url()]
    result = run("put", "k", "v", endpoints=",".join(endpoints))
    assert result.exit_code == 1
    assert all(f"{endpoint} (connection refused)" in result.stderr for endpoint in endpoints)


def test_conditions() -> None:
    with running(Stub()) as (node,):
        assert run("put", "k", "1", "--if-absent", endpoints=node.url).exit_code == 0
        again = run("put", "k", "2", "--if-absent", endpoints=node.url)
        assert (again.exit_code, again.stderr) == (1, "Error: the key is at revision 1\n")
        assert run("put", "k", "3", "--if-revision", "1", endpoints=node.url).exit_code == 0
        assert run("put", "k", "4", "--if-revision", "1", endpoints=node.url).exit_code == 1
        assert node.values[b"k"][0] == b"3"
        both = run("put", "k", "5", "--if-revision", "1", "--if-absent", endpoints=node.url)
        assert both.exit_code == 2


def test_the_node_is_told_a_shorter_timeout_than_we_wait() -> None:
    with running(Stub(fail=NO_LEADER), Stub()) as (one, two):
        run("put", "k", "v", endpoints=f"{one.url},{two.url}", timeout="4s")
        first, second = (int(s.asked[0].split("timeout=")[1].removesuffix("ms")) for s in (one, two))
        assert 1_500 <= first <= 1_600  # half of the time, less what its answer may take
        assert 3_000 <= second <= 3_600  # all that is left


def test_a_large_body_refused_while_it_is_sent_is_no_unknown() -> None:
    with running(Stub(fail=HASTY)) as (node,):
        result = run("put", "k", "-", endpoints=node.url, input=b"x" * (32 << 20))
        assert (result.exit_code, result.stderr) == (1, "Error: at most 1 MiB\n")


@pytest.mark.parametrize("fail", [CUT, CUT_LATE, LEFT, LATE, (502, b"<html>bad gateway</html>")], ids=str)
@pytest.mark.parametrize("arguments", [("put", "k", "v"), ("delete", "k")], ids=["put", "delete"])
def test_with_an_idempotency_key_it_goes_on(fail: Any, arguments: tuple[str, ...]) -> None:
    with running(Stub(fail=fail), Stub()) as (one, two):
        result = run(*arguments, "--idempotency-key", "t", endpoints=f"{one.url},{two.url}")
        assert result.exit_code == 0
        assert len(one.asked) == len(two.asked) == 1


@pytest.mark.parametrize(
    ("last", "code"),
    [(None, 0), (NO_LEADER, 3), (problem(507, "quota_exceeded", "full", "not_applied"), 3), (LATE, 3)],
    ids=str,
)
def test_and_is_unknown_where_nobody_says_what_became_of_it(last: Any, code: int) -> None:
    with running(Stub(fail=CUT_LATE), Stub(fail=last)) as (one, two):
        result = run("put", "k", "v", "--idempotency-key", "t", endpoints=f"{one.url},{two.url}")
        assert result.exit_code == code
    with running(Stub(fail=CUT_LATE)) as (one,):
        endpoints = f"{one.url},{dead_url()}"
        assert run("put", "k", "v", "--idempotency-key", "t", endpoints=endpoints).exit_code == 3


def test_what_excludes_each_other() -> None:
    for arguments in (
        ("delete", "k", "--prefix", "--end", "l"),
        ("delete", "k", "--prefix", "--if-revision", "1"),
        ("delete", "k", "--end", "l", "--if-revision", "1"),
        ("list", "k", "--start", "a"),
    ):
        assert run(*arguments, endpoints=dead_url()).exit_code == 2
