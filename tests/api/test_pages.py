"""Listings: every page walk gives the keys of the range, each once, in order."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.client import Connection, quote
from tests.api.node import LoopThread, RestNode

KEYS = st.binary(min_size=1, max_size=3).map(lambda key: bytes(b"\x01a+\xff"[byte % 4] for byte in key))
BOUNDS = st.none() | st.just(b"") | KEYS


def key_of(item: dict[str, Any]) -> bytes:
    return item["key"].encode() if "key" in item else b64decode(item["key_base64"])


def walk(client: Connection, query: str) -> list[dict[str, Any]]:
    """All items of all pages."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = client.request("GET", f"/v1/kv?{query}{cursor}")
        assert page.status == 200, page.body
        items += page.json["items"]
        assert len(items) <= 1000, "the walk doesn't end"
        if page.json["cursor"] is None:
            return items
        assert page.json["items"], "a page that has a next one isn't empty"
        cursor = f"&cursor={page.json['cursor']}"


@pytest.fixture(scope="module")
def pages(loop_thread: LoopThread) -> Iterator[RestNode]:
    node = RestNode(loop_thread)
    yield node
    node.close()


@given(
    keys=st.lists(KEYS, max_size=20, unique=True),
    prefix=BOUNDS,
    start=BOUNDS,
    end=BOUNDS.filter(lambda end: end != b""),
    limit=st.none() | st.integers(1, 5),
    reverse=st.booleans(),
    keys_only=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_walk_against_a_model(
    pages: RestNode,
    *,
    keys: list[bytes],
    prefix: bytes | None,
    start: bytes | None,
    end: bytes | None,
    limit: int | None,
    reverse: bool,
    keys_only: bool,
) -> None:
    store = pages.store
    for old, _ in store.page(b"", None, 1000).items:
        store.delete(old)
    for key in keys:
        store.put(key, key, None)
    expected = sorted(keys, reverse=reverse)
    query = [f"limit={limit}"] if limit else []
    if prefix is not None:
        query.append(f"prefix={quote(prefix)}")
        expected = [key for key in expected if key.startswith(prefix)]
    else:
        if start is not None:
            query.append(f"start={quote(start)}")
            expected = [key for key in expected if key >= start]
        if end is not None:
            query.append(f"end={quote(end)}")
            expected = [key for key in expected if key < end]
    query += ["reverse=true"] * reverse + ["keys_only=true"] * keys_only
    with Connection(pages) as client:
        items = walk(client, "&".join(query))
    assert [key_of(item) for item in items] == expected
    assert all(("value" in item or "value_base64" in item) is not keys_only for item in items)


def test_a_page(client: Connection) -> None:
    client.request("PUT", "/v1/kv/a", [("Content-Type", "text/plain")], b"1")
    client.request("PUT", "/v1/kv/b", body=b"\xff")
    reply = client.request("GET", "/v1/kv")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["raftkv-revision"] == "2"
    assert reply.headers["raftkv-consistency"] == "linearizable"
    meta = {"create_revision": 1, "mod_revision": 1, "version": 1, "lease": None}
    assert reply.json == {
        "items": [
            {"key": "a", "value": "1", **meta, "content_type": "text/plain"},
            {
                "key": "b",
                "value_base64": "/w==",
                "create_revision": 2,
                "mod_revision": 2,
                "version": 1,
                "lease": None,
                "content_type": None,
            },
        ],
        "cursor": None,
        "revision": 2,
    }
    keys = client.request("GET", "/v1/kv?keys_only=true&limit=1").json
    assert keys["items"] == [{"key": "a"}]
    assert keys["cursor"] is not None


def test_an_empty_store_is_an_empty_page(client: Connection) -> None:
    assert client.request("GET", "/v1/kv").json == {"items": [], "cursor": None, "revision": 0}


def test_a_hundred_items_unless_asked_otherwise(node: RestNode, client: Connection) -> None:
    for i in range(101):
        node.store.put(b"%03d" % i, b"", None)
    page = client.request("GET", "/v1/kv").json
    assert len(page["items"]) == 100
    assert page["cursor"] is not None
    assert len(client.request("GET", "/v1/kv?limit=1000").json["items"]) == 101


def test_keys_that_come_and_go_during_a_walk_disturb_no_other(node: RestNode, client: Connection) -> None:
    for key in (b"b", b"d", b"f", b"h"):
        node.store.put(key, b"", None)
    first = client.request("GET", "/v1/kv?limit=2").json
    for key in (b"a", b"e"):
        node.store.put(key, b"", None)
    node.store.delete(b"d")
    second = client.request("GET", f"/v1/kv?limit=9&cursor={first['cursor']}").json
    assert [item["key"] for item in first["items"] + second["items"]] == ["b", "d", "e", "f", "h"]


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_a_cursor_of_another_listing_leads_out_of_no_range(
    node: RestNode, client: Connection, reverse: str
) -> None:
    for key in (b"a", b"b1", b"b2", b"c", b"d"):
        node.store.put(key, b"", None)
    for limit in (1, 2, 3, 4):
        cursor = client.request("GET", f"/v1/kv?limit={limit}&reverse={reverse}").json["cursor"]
        items = walk(client, f"prefix=b&reverse={reverse}&cursor={cursor}")
        assert {item["key"] for item in items} <= {"b1", "b2"}


def test_a_plus_is_a_space_in_a_query_as_curl_sends_it(node: RestNode, client: Connection) -> None:
    for key in (b"a b", b"a+b"):
        node.store.put(key, b"", None)
    assert [item["key"] for item in walk(client, "prefix=a+")] == ["a b"]
    assert [item["key"] for item in walk(client, "prefix=a%2B")] == ["a+b"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=",
        "limit=ten",
        "limit=1e2",
        "limit=%D9%A3",  # a digit, but not ASCII's
        "limit=99999999999999999999999",
        "reverse=maybe",
        "keys_only=TRUE",
        "prefix=a&start=b",
        "prefix=a&end=b",
        "prefix=%00",
        "revision=0",
        "revision=x",
        "revision=99&revision=98",
        "count=2",
        "cursor=",
        "cursor=x",
        "cursor=%FF",
        "cursor=eA",  # base64 of "x"
        "cursor=!!!!",
        "prefix=%zz",
        "prefix=%",
        "prefix=a&prefix=b",
        "prefx=a",
        "%70refix=a",
        "consistency=strong",
        "consistency=",
        "timeout=5",
        "timeout=0s",
        "timeout=-1s",
        "timeout=1.5s",
        "timeout=2h",
        "timeout=1d",
        "timeout=%D9%A3s",
        "timeout=",
        "format=json",
    ],
)
def test_a_query_that_says_nothing_clear_is_refused(client: Connection, query: str) -> None:
    reply = client.request("GET", f"/v1/kv?{query}")
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert client.request("GET", "/v1/kv").status == 200


def test_a_cursor_belongs_to_its_direction(node: RestNode, client: Connection) -> None:
    for key in (b"a", b"b", b"c"):
        node.store.put(key, b"", None)
    for query, other in (("reverse=false", "reverse=true"), ("reverse=true", "reverse=false")):
        cursor = client.request("GET", f"/v1/kv?limit=1&{query}").json["cursor"]
        reply = client.request("GET", f"/v1/kv?{other}&cursor={cursor}")
        assert (reply.status, reply.json["code"]) == (400, "bad_request")
