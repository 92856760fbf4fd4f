"""What transactions are made of, and how keys are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv import (
    AsyncClient,
    CreateRevision,
    Delete,
    DeleteRange,
    Get,
    GetRange,
    Increment,
    LeaseOf,
    ModRevision,
    Put,
    Value,
    Version,
    absent,
    exists,
)
from raftkv.sdk.forms import data_bytes, duration, field, key_bytes, key_path, key_text, read_field
from raftkv.sdk.operations import Compare, Operation

ONE = {"key": "k"}


@given(st.binary())
def test_keys_come_back_as_they_went(key: bytes) -> None:
    assert key_bytes(key_text(key)) == key
    assert read_field(field("key", key), "key") == key


def test_only_what_a_path_may_hold_stays_as_it_is() -> None:
    assert key_path("a/b c?#%ä") == "/v1/kv/a/b%20c%3F%23%25%C3%A4"
    assert key_path(b"\xff.") == "/v1/kv/%FF."


@pytest.mark.parametrize("value", [5, True, 1.5, None, {"a": 1}, [1, 2]])
def test_a_value_is_not_made_of_what_is_neither_text_nor_bytes(value: Any) -> None:
    """``bytes(5)`` is five NUL bytes."""
    with pytest.raises(TypeError, match="text or bytes"):
        data_bytes(value)
    with pytest.raises(TypeError, match="text or bytes"):
        key_bytes(value)


def test_what_holds_bytes_is_a_value() -> None:
    assert [data_bytes(each) for each in ("ä", b"\xff", bytearray(b"a"), memoryview(b"b"))] == [
        "ä".encode(), b"\xff", b"a", b"b"
    ]  # fmt: skip


def test_a_duration_is_a_number_of_seconds() -> None:
    with pytest.raises(TypeError, match="number of seconds, got '5s'"):
        duration("5s")  # type: ignore[arg-type]


def test_a_duration_has_a_millisecond_at_least() -> None:
    assert duration(1.5) == "1500ms"
    with pytest.raises(ValueError, match="a millisecond at least"):
        duration(0.0001)


@pytest.mark.parametrize(
    ("operation", "document"),
    [
        (Put("k", b"\xff"), {"put": {**ONE, "value_base64": "/w=="}}),
        (
            Put(b"\xff", "v", content_type="text/plain", lease=7),
            {"put": {"key_base64": "/w==", "value": "v", "content_type": "text/plain", "lease": 7}},
        ),
        (Put("k", "v", ttl=1.5), {"put": {**ONE, "value": "v", "ttl": "1500ms"}}),
        (Get("k"), {"get": ONE}),
        (
            GetRange(prefix="k", limit=3, reverse=True, keys_only=True),
            {"get": {"prefix": "k", "limit": 3, "reverse": True, "keys_only": True}},
        ),
        (GetRange(start="a", end=b"\xff"), {"get": {"start": "a", "end_base64": "/w=="}}),
        (Delete("k"), {"delete": ONE}),
        (DeleteRange(prefix="k"), {"delete": {"prefix": "k"}}),
        (Increment("k", -2), {"increment": {**ONE, "by": -2}}),
    ],
)
def test_operations_are_written_as_the_api_takes_them(operation: Operation, document: Any) -> None:
    assert operation.document() == document


@pytest.mark.parametrize(
    ("compare", "document"),
    [
        (Value("k") == "v", {**ONE, "target": "value", "op": "==", "value": "v"}),
        (Value("k") != b"\xff", {**ONE, "target": "value", "op": "!=", "value_base64": "/w=="}),
        (Version("k") < 3, {**ONE, "target": "version", "op": "<", "value": 3}),
        (ModRevision("k") > 3, {**ONE, "target": "mod_revision", "op": ">", "value": 3}),
        (
            CreateRevision("k", end="l") == 0,
            {**ONE, "end": "l", "target": "create_revision", "op": "==", "value": 0},
        ),
        (LeaseOf("k") == 7, {**ONE, "target": "lease", "op": "==", "value": 7}),
        (exists("k"), {**ONE, "target": "exists", "op": "==", "value": True}),
        (absent("k"), {**ONE, "target": "exists", "op": "==", "value": False}),
    ],
)
def test_compares_are_written_as_the_api_takes_them(compare: Compare, document: Any) -> None:
    assert compare.document() == document


def test_mistakes_are_noticed_where_they_are_made() -> None:
    with pytest.raises(TypeError, match="without and/or/not"):
        bool(Value("k") == "v")
    with pytest.raises(TypeError, match="compared with a number"):
        assert Version("k") == "3"
    with pytest.raises(TypeError, match="compared with bytes or text"):
        assert Value("k") == 3
    with pytest.raises(ValueError, match="either prefix, or start and end"):
        GetRange(prefix="a", start="b").document()
    with pytest.raises(ValueError, match="either prefix, or start and end"):
        DeleteRange().document()
    with pytest.raises(TypeError, match="when\\(\\) takes compares"):
        AsyncClient("http://127.0.0.1:1").txn().when(True)  # type: ignore[arg-type]


def test_a_transaction_is_gathered_bit_by_bit_and_may_be_part_of_another() -> None:
    client = AsyncClient("http://127.0.0.1:1")
    inner = client.txn().when(exists("a")).when(absent("b")).then(Get("a")).otherwise(Get("b"))
    outer = client.txn().then(inner.txn).txn.fields()
    assert outer["then"] == [
        {
            "txn": {
                "if": [exists("a").document(), absent("b").document()],
                "then": [{"get": {"key": "a"}}],
                "else": [{"get": {"key": "b"}}],
            }
        }
    ]
