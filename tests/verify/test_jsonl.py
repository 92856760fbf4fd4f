"""Histories as JSON lines: out and back, and what is wrong with a line."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.verify.history import (
    Cas,
    Condition,
    ConditionKind,
    Get,
    Item,
    Operation,
    Outcome,
    Put,
    Read,
    Written,
)
from raftkv.verify.jsonl import BadHistory, read_history, write_history
from tests.verify.test_generated import history

GOOD = {
    "client": "c1",
    "op": "put",
    "key": "a",
    "value": "1",
    "call": 0.5,
    "return": 1,
    "outcome": "ok",
    "result": {"revision": 1, "version": 1},
}


@given(st.integers(0, 2**32), st.integers(0, 30))
def test_out_and_back(seed: int, size: int) -> None:
    made = history(Random(seed), size, keys=3, lost=0.2, overlap=3)
    assert read_history(write_history(made)) == made


def test_bytes_that_are_no_text_and_what_is_rare() -> None:
    condition = Condition(ConditionKind.REVISION_NOT_IN, (3,))
    made = [
        Operation("c", Put(b"\xff", b"\x00\xfe", condition), 0, 1, Outcome.FAIL),
        Operation("c", Cas("ü\n".encode(), b"", b"2"), 0, 1, Outcome.OK, Written()),
        Operation("c", Get(b"a", stale=True), 0, 1, Outcome.OK, Read(Item(), 0)),
    ]
    lines = list(write_history(made))
    assert all(line.count("\n") == 1 for line in lines)
    assert read_history(lines) == made


def test_a_line_as_a_person_writes_it() -> None:
    (operation,) = read_history(["\n", json.dumps(GOOD), ""])
    assert operation == Operation("c1", Put(b"a", b"1"), 0.5, 1.0, Outcome.OK, Written(1, 1))


WRONG: list[tuple[dict[str, object], str]] = [
    ({"client": None}, "has no 'client'"),
    ({"op": "increment"}, "'op' can't be 'increment'"),
    ({"key": 3}, "'key' can't be 3"),
    ({"key": None, "key_base64": "&"}, "base64"),
    ({"call": True}, "'call' can't be true"),
    ({"call": float("nan")}, "before its call"),
    ({"return": 0.4}, "before its call"),
    ({"return": None}, "has no 'return'"),
    ({"outcome": "maybe"}, "'maybe' is not a valid Outcome"),
    ({"outcome": "unknown"}, "goes without a result"),
    ({"result": None}, "goes with a result"),
    ({"revison": 1}, "unknown field 'revison'"),
    ({"result": {"revision": 1, "versoin": 1}}, "unknown field 'versoin'"),
    ({"result": {"revision": -1}}, "'revision' can't be -1"),
    ({"result": {"revision": "1"}}, "'revision' can't be \"1\""),
    ({"revisions": [1]}, "go with a 'condition'"),
    ({"condition": "sometimes"}, "not a valid ConditionKind"),
    ({"condition": "revision_in", "revisions": ["1"]}, "whole numbers"),
    ({"op": "get", "value": None, "result": {"revision": 1}}, "has no 'found'"),
    ({"op": "get", "value": None, "result": {"refused": True}}, "get can't be answered by refused"),
    ({"op": "delete", "value": None, "result": {"deleted": 2}}, "'deleted' can't be 2"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_wrong_line_is_named(change: dict[str, object], words: str) -> None:
    lines = [json.dumps(GOOD), json.dumps(GOOD | change)]
    with pytest.raises(BadHistory) as error:
        read_history(lines)
    assert str(error.value).startswith("line 2: ")
    assert words in str(error.value)


@pytest.mark.parametrize("line", ["{", "[]", "3", '"a"', "[" * 100_000])
def test_what_is_no_object(line: str) -> None:
    with pytest.raises(BadHistory, match=r"^line 1: "):
        read_history([line])
