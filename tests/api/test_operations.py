"""A batch of nothing but puts is encoded by the whole: as its operations are one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raftkv.api.operations import Encoder
from raftkv.errors import RaftkvError
from raftkv.kv.commands import encode_batch_of
from tests.api.node import LIMITS

SMALL = replace(LIMITS, max_key_bytes=4, max_value_bytes=6)


def put(key: Any, value: Any, **more: Any) -> dict[str, Any]:
    return {"put": {"key": key, "value": value} | more}


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [put("a", "1")],
        [put("a", "1"), put("a", ""), put("ключ"[:2], "знач"[:3])],
        [put("a", "1"), put(b"b", b"\xff")],
        [put("a", "1"), put("a", "1", content_type="text/plain")],
        [put("a", "1"), {"put": {"key_base64": "YQ==", "value": "1"}}],
        [put("a", "1"), {"op": "put", "key": "a", "value": "1"}],
        [put("a", "1"), {"delete": {"key": "a"}}],
    ],
)
def test_what_can_be_done(documents: list[dict[str, Any]]) -> None:
    whole, single = Encoder(SMALL, 3), Encoder(SMALL, 3)
    assert whole.batch(documents) == encode_batch_of([single.operation(each) for each in documents])
    assert whole.adds_bytes == single.adds_bytes


@pytest.mark.parametrize(
    "document",
    [
        put("", "1"),
        put("12345", "1"),
        put("\0a", "1"),
        put("a", "1234567"),
        put("\ud800", "1"),
        put("a", "\ud800"),
        put(1, "1"),
        put("a", None),
        put("a", "1", more="1"),
        {"put": {"key": "a", "values": "1"}},
        {"put": {"key": "a", "value": "1"}, "get": {"key": "a"}},
        {"put": ["key", "value"]},
    ],
)
def test_what_cannot(document: dict[str, Any]) -> None:
    with pytest.raises(RaftkvError) as alone:
        Encoder(SMALL, 3).operation(document)
    with pytest.raises(RaftkvError) as among_others:
        Encoder(SMALL, 3).batch([put("a", "1"), document])
    assert (type(among_others.value), among_others.value.detail) == (type(alone.value), alone.value.detail)


def test_more_than_may_be() -> None:
    with pytest.raises(RaftkvError, match="at most 2 operations"):
        Encoder(SMALL, 2).batch([put("a", "1")] * 3)
