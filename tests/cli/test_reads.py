"""``get`` and ``list``: bytes as they are, pages to the end, any endpoint that can answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.cli import kv as kv_commands
from raftkv.cli import main
from raftkv.cli.output import printable
from raftkv.client.kv import key_path
from tests.cli.stub import CUT, GARBAGE, HALF, HANG, Stub, dead_url, problem, running

NO_LEADER = problem(503, "no_quorum", "no leader", "not_applied")
BYTES = bytes(range(256))


def run(*arguments: str, endpoints: str, **more: Any) -> Result:
    return CliRunner().invoke(main, [*arguments, "--endpoints", endpoints], **more)


@pytest.mark.parametrize("value", [b"", b"text", b"line\n", BYTES, b"\r\n\0"], ids=repr)
def test_put_from_a_pipe_and_get_are_exact(value: bytes) -> None:
    with running(Stub()) as (node,):
        assert run("put", "k", endpoints=node.url, input=value).exit_code == 0
        assert run("put", "k2", "-", endpoints=node.url, input=value).exit_code == 0
        assert run("get", "k", endpoints=node.url).stdout_bytes == value
        assert run("get", "k2", "--consistency", "stale", endpoints=node.url).stdout_bytes == value
        assert "consistency=stale" in node.asked[-1]


def test_how_fresh_an_answer_must_be_is_passed_on() -> None:
    options = ("--consistency", "stale", "--max-staleness", "500ms", "--min-revision", "7")
    with running(Stub(values={b"k": (b"v", 1, 1)})) as (node,):
        for command in (("get", "k"), ("get", "k", "--output", "json"), ("list",)):
            assert run(*command, *options, endpoints=node.url).exit_code == 0
            for part in ("consistency=stale", "max_staleness=500ms", "min_revision=7"):
                assert part in node.asked[-1]
        assert run("get", "k", "--consistency", "lease", endpoints=node.url).exit_code == 0
        assert "consistency=lease" in node.asked[-1]
        refused = run("get", "k", "--max-staleness", "1s", endpoints=node.url)
        assert (refused.exit_code, "--consistency stale" in refused.output) == (2, True)


@pytest.mark.parametrize(
    "fail", [CUT, HALF, GARBAGE, NO_LEADER, (502, b"?"), problem(504, "timeout", "late", "unknown")], ids=str
)
def test_reads_go_on_after_any_failure(fail: Any) -> None:
    with running(Stub(fail=fail), Stub(values={b"k": (b"v", 1, 1)})) as (one, two):
        result = run("get", "k", endpoints=f"{dead_url()},{one.url},{two.url}")
        assert (result.exit_code, result.stdout) == (0, "v")


def test_a_node_that_hangs_leaves_time_for_the_others() -> None:
    with running(Stub(fail=HANG), Stub(values={b"k": (b"v", 1, 1)})) as (one, two):
        result = run("get", "k", "--timeout", "1s", endpoints=f"{one.url},{two.url}")
        assert (result.exit_code, result.stdout) == (0, "v")


def test_a_missing_key_is_1_with_one_line_on_stderr() -> None:
    with running(Stub(), Stub()) as (one, two):
        result = run("get", "no/such", endpoints=f"{one.url},{two.url}")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: there is no key no/such\n"
        assert two.asked == []  # it would not be there either


def test_no_quorum_is_4() -> None:
    with running(Stub(fail=NO_LEADER)) as (node,):
        assert run("get", "k", endpoints=node.url).exit_code == 4
        assert run("list", endpoints=node.url).exit_code == 4


def test_json_is_the_envelope() -> None:
    with running(Stub(values={b"k": (b"\xff", 7, 2)})) as (node,):
        envelope = json.loads(run("get", "k", "--output", "json", endpoints=node.url).stdout)
        assert envelope == {"key": "k", "value_base64": "/w==", "mod_revision": 7, "version": 2}


def test_delete() -> None:
    with running(Stub(values={b"k": (b"v", 1, 1)})) as (node,):
        assert run("delete", "k", endpoints=node.url).stdout == "deleted k (revision 0)\n"
        again = run("delete", "k", endpoints=node.url)
        assert (again.exit_code, again.stdout) == (0, "there was no key k\n")


@pytest.fixture
def full() -> Stub:
    return Stub(values={f"k{n:03}".encode(): (f"v{n}".encode(), n + 1, 1) for n in range(250)})


def test_list_follows_the_cursor_to_the_end(full: Stub) -> None:
    with running(full, Stub(values={b"other": (b"", 1, 1)})) as (node, _):
        result = run("list", "k", endpoints=node.url)
        assert result.stdout == "".join(f"k{n:03}\tv{n}\n" for n in range(250))
        assert len(node.asked) == 3


def test_list_takes_no_more_than_the_limit(full: Stub) -> None:
    with running(full) as (node,):
        lines = run("list", "--limit", "120", "--keys-only", "--reverse", endpoints=node.url).stdout.split()
        assert lines == [f"k{n:03}" for n in range(249, 129, -1)]
        assert "limit=120" in node.asked[0]
        assert len(node.asked) == 1


@pytest.mark.parametrize("keys", [0, 1, 2])
def test_list_as_json_is_one_array(keys: int) -> None:
    values = {f"k{n}".encode(): (b"v", 1, 1) for n in range(keys)}
    with running(Stub(values=values)) as (node,):
        items = json.loads(run("list", "--output", "json", endpoints=node.url).stdout)
        assert [item["key"] for item in items] == [f"k{n}" for n in range(keys)]


def test_plain_lines_cannot_be_broken_by_what_is_in_them() -> None:
    with running(Stub(values={b"a\nb": (b"1\t2\x1b[31m\xff\\", 1, 1)})) as (node,):
        result = run("list", endpoints=node.url)
        assert result.stdout == "a\\nb\t1\\t2\\x1b[31m\\xff\\\\\n"


def test_a_table_on_a_terminal(full: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_commands, "on_terminal", lambda: True)
    monkeypatch.setattr(kv_commands, "TERMINAL_ITEMS", 3)
    with running(full) as (node,):
        result = run("list", endpoints=node.url)
        assert result.stdout.split("\n")[0].split() == ["KEY", "VALUE", "REVISION", "VERSION"]
        assert result.stdout.split("\n")[3].split() == ["k002", "v2", "3", "1"]
        assert len(result.stdout.splitlines()) == 4
        assert "and more" in result.stderr


@given(st.binary(max_size=40))
@settings(max_examples=300)
def test_printable_is_one_line_and_can_be_told_back(raw: bytes) -> None:
    line = printable(raw)
    assert line.isprintable()
    back = line.encode().decode("unicode_escape").encode("latin-1") if line.isascii() else raw
    assert back == raw


@pytest.mark.parametrize(
    ("key", "path"),
    [
        (b"a/b", "/v1/kv/a/b"),
        (b"a b?c#d%e", "/v1/kv/a%20b%3Fc%23d%25e"),
        (b"\xff\0", "/v1/kv/%FF%00"),
        ("é".encode(), "/v1/kv/%C3%A9"),
        (b"-._~", "/v1/kv/-._~"),
        (b"//", "/v1/kv///"),
    ],
)
def test_keys_in_the_path(key: bytes, path: str) -> None:
    assert key_path(key) == path


def test_a_prefix_may_be_any_bytes() -> None:
    with running(Stub(values={b"\xff1": (b"", 1, 1), b"a": (b"", 1, 1)})) as (node,):
        result = run("list", "\udcff", "--keys-only", endpoints=node.url)
        assert result.stdout == "\\xff1\n"
