"""Hello and status frames."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.consensus.types import GroupId, NodeId
from raftkv.wire.errors import WireError
from raftkv.wire.frames import FrameKind, pack_frame
from raftkv.wire.reports import Hello, decode_hello, decode_status, encode_hello, encode_status
from tests.wire.strategies import json_values, names, numbers, packable

HELLO = Hello(1, "c1", NodeId("n1"), NodeId("n2"), 77, (GroupId(0),), "http://a:8001")
FIELDS: dict[str, Any] = {
    "version": 1,
    "cluster": "c1",
    "node": "n1",
    "receiver": "n2",
    "incarnation": 77,
    "groups": [0],
    "client_url": "http://a:8001",
}


_GOLDEN = (
    b"\xa7version\x01\xa7cluster\xa2c1\xa4node\xa2n1\xa8receiver\xa2n2"
    b"\xabincarnation\x4d\xa6groups\x91\x00\xaaclient_url\xadhttp://a:8001"
)


def test_golden_hello() -> None:
    hello = replace(HELLO, max_version=2, peer_address="a:9001", moved=True, directory="d1")
    golden = (
        b"\x92\x00\x8b" + _GOLDEN + b"\xabmax_version\x02\xacpeer_address\xa6a:9001"
        b"\xa5moved\xc3\xa9directory\xa2d1"
    )
    assert encode_hello(hello) == golden
    assert decode_hello(golden) == hello


def test_golden_hello_of_a_node_that_speaks_version_1_only() -> None:
    assert decode_hello(b"\x92\x00\x87" + _GOLDEN) == HELLO
    assert HELLO.versions == (1, 1)


def test_golden_status() -> None:
    assert encode_status({"role": "leader", "term": 7}) == b"\x92\x02\x82\xa4role\xa6leader\xa4term\x07"


@given(
    st.builds(
        Hello,
        numbers,
        names,
        names,
        names,
        numbers,
        st.lists(numbers, max_size=3).map(tuple),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
        numbers,
        st.sampled_from(["", "a:1", "[::1]:9001", "h" * 253 + ":65535"]),
        st.booleans(),
        st.just("") | names,
    )
)
def test_hello_round_trip(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


def test_unknown_keys_of_a_hello_are_passed_over() -> None:
    """How a later version adds to it."""
    assert decode_hello(pack_frame(FrameKind.HELLO, [{**FIELDS, "new": [1]}])) == HELLO


@pytest.mark.parametrize("key", FIELDS)
def test_every_key_of_a_hello_is_needed(key: str) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != key}
    with pytest.raises(WireError, match=key):
        decode_hello(pack_frame(FrameKind.HELLO, [fields]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", True),
        ("version", "1"),
        ("cluster", "a b"),
        ("cluster", 5),
        ("node", ""),
        ("receiver", None),
        ("incarnation", -1),
        ("groups", 0),
        ("groups", [None]),
        ("groups", [0] * 1025),
        ("client_url", b"x"),
        ("client_url", "x" * 2049),
        ("client_url", "http://a\n"),
        ("max_version", True),
        ("max_version", -1),
        ("peer_address", 5),
        ("peer_address", "here"),
        ("peer_address", "a:1/path"),
        ("peer_address", "h" * 300 + ":1"),
        ("moved", 1),
        ("directory", "a b"),
        ("directory", None),
    ],
)
def test_malformed_hello(key: str, value: Any) -> None:
    with pytest.raises(WireError):
        decode_hello(pack_frame(FrameKind.HELLO, [{**FIELDS, key: value}]))


@given(packable)
def test_random_hello_and_status_raise_wire_error_only(value: Any) -> None:
    for kind, decode in ((FrameKind.HELLO, decode_hello), (FrameKind.STATUS, decode_status)):
        for items in ([value], [value, value], [{"version": value}], [{**FIELDS, "groups": value}]):
            with contextlib.suppress(WireError):
                decode(pack_frame(kind, items))


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_status_round_trip(status: dict[str, Any]) -> None:
    assert decode_status(encode_status(status)) == status


@pytest.mark.parametrize(
    "value", [b"bytes", object(), {1: 2}, {1}, 2**64], ids=lambda value: type(value).__name__
)
def test_status_holds_json_only(value: Any) -> None:
    with pytest.raises(WireError):
        encode_status({"key": value})


def test_received_status_holds_json_only() -> None:
    with pytest.raises(WireError, match="not a JSON value"):
        decode_status(pack_frame(FrameKind.STATUS, [{"key": [b"bytes"]}]))


def test_status_is_bounded() -> None:
    with pytest.raises(WireError, match="over the limit"):
        encode_status({"key": ["x" * 1000] * 100})
    with pytest.raises(WireError, match="over the limit"):
        decode_status(pack_frame(FrameKind.STATUS, [{"key": ["x" * 1000] * 100}]))
    deep: Any = 1
    for _ in range(9):
        deep = [deep]
    with pytest.raises(WireError, match="nested"):
        encode_status({"key": deep})


def test_a_hello_is_bounded_before_it_is_read() -> None:
    """Whoever can reach the port may send one."""
    fields = FIELDS | {f"key{n}": "x" * 4000 for n in range(17)}
    with pytest.raises(WireError, match="over the limit of 65536"):
        decode_hello(pack_frame(FrameKind.HELLO, [fields]))
    with pytest.raises(WireError, match="over the limit of 65536"):
        decode_hello(bytes(100_000))


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(WireError, match="expected a hello, got a frame of kind status"):
        decode_hello(encode_status({}))
    with pytest.raises(WireError, match="expected a status, got a frame of kind hello"):
        decode_status(encode_hello(HELLO))
