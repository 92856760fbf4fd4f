"""Random requests: never a 5xx, never silence, and every refusal is a problem document."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.client import Connection, Reply, quote, request_bytes
from tests.api.node import LoopThread, RestNode

METHODS = st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS"])
PATH_TEXT = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?"), max_size=20
)
PATHS = (
    PATH_TEXT.map("/v1/kv/{}".format)
    | PATH_TEXT.map("/{}".format)
    | st.binary(max_size=70).map(lambda key: f"/v1/kv/{quote(key)}")
    | st.sampled_from(
        ["/v1/kv", "/v1/kv/", "/v1/kv/k", "/v1/txn", "/v1/batch", "/v1/compact", "/livez", "/readyz"]
    )
)
NAMES = st.sampled_from(
    [
        "prefix",
        "start",
        "end",
        "limit",
        "cursor",
        "keys_only",
        "reverse",
        "timeout",
        "consistency",
        "max_staleness",
        "min_revision",
        "format",
        "if_revision",
        "if_absent",
        "ttl",
        "lease",
        "revision",
        "delimiter",
        "count",
        "x",
    ]
)
QUERY_VALUES = (
    st.sampled_from(
        ["", "1", "true", "0", "stale", "lease", "linearizable", "json", "raw", "5s", "a", "Zg", "cg"]
    )
    | PATH_TEXT
    | st.binary(max_size=4).map(quote)
)
QUERIES = st.lists(st.builds("{}={}".format, NAMES, QUERY_VALUES), max_size=3).map("&".join)
TAGS = st.sampled_from(["*", '"1"', 'W/"2"', '"1", "2"', "", '"', ",", "x", '"a,"', '"99999999999999999999"'])
HEADERS = st.lists(
    st.tuples(st.sampled_from(["If-Match", "If-None-Match"]), TAGS)
    | st.tuples(st.just("Accept"), st.sampled_from(["application/json", "application/msgpack", "*/*", ""]))
    | st.tuples(st.just("Idempotency-Key"), st.sampled_from(["", "a", "b" * 300]))
    | st.tuples(
        st.just("Content-Type"),
        st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8"), max_size=8),
    )
    | st.tuples(st.just("Expect"), st.sampled_from(["100-continue", "much"]))
    | st.tuples(st.just("Content-Encoding"), st.sampled_from(["gzip", "deflate", "identity", "br"])),
    max_size=2,
)
BODIES = st.none() | st.binary(max_size=40) | st.just(b"v" * 5000)


@pytest.fixture(scope="module")
def fuzzed(loop_thread: LoopThread) -> Iterator[RestNode]:
    node = RestNode(loop_thread)
    node.store.put(b"k", b"v", "text/plain")
    yield node
    node.close()


def check(reply: Reply) -> None:
    assert reply.status < 500, reply.body
    if reply.status >= 400 and reply.body:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json["status"] == reply.status
        assert reply.json["outcome"] == "not_applied"


@given(method=METHODS, path=PATHS, query=QUERIES, headers=HEADERS, body=BODIES)
@settings(max_examples=300, deadline=None)
def test_requests(
    fuzzed: RestNode,
    *,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes | None,
) -> None:
    target = f"{path}?{query}" if query else path
    with Connection(fuzzed) as client:
        reply = client.request(method, target, headers, body)
        if reply.status == 100:
            reply = client.reply(method)
        check(reply)
        if reply.headers.get("connection") != "close" and reply.status not in (400, 414):
            assert client.request("GET", "/livez").status == 200, "out of step"


@given(
    st.binary(max_size=100) | st.binary(max_size=60).map(lambda junk: request_bytes("PUT", "/v1/kv/k") + junk)
)
@settings(max_examples=200, deadline=None)
def test_bytes(fuzzed: RestNode, data: bytes) -> None:
    """Whatever comes, what can be answered is, and when the client has ended, so does the connection."""
    with Connection(fuzzed) as client:
        client.send(data + b"\r\n\r\n")
        client.end()
        statuses = []
        while not client.is_closed():
            statuses.append(client.reply().status)
    assert all(status < 500 for status in statuses)
    with Connection(fuzzed) as client:
        assert client.request("GET", "/livez").status == 200


@given(cut=st.integers(0, 200), at=st.integers(0, 200), byte=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_a_sound_request_with_one_byte_changed(fuzzed: RestNode, cut: int, at: int, byte: int) -> None:
    data = bytearray(
        request_bytes("PUT", "/v1/kv/k?timeout=1s", [("If-Match", '"1"'), ("Content-Type", "a/b")], b"value")
    )
    data[at % len(data)] = byte
    with Connection(fuzzed) as client:
        client.send(bytes(data[: cut % len(data) + 1] if cut % 3 == 0 else data))
        client.end()
        while not client.is_closed():
            assert client.reply().status < 500
