"""Reads of an earlier revision, compaction, folders, counts, and range deletion."""

from __future__ import annotations

import json

import pytest

from raftkv.kv.commands import encode_level
from raftkv.kv.levels import MACHINE_LEVEL
from tests.api.client import Connection, Reply
from tests.api.node import LoopThread, RestNode


@pytest.fixture(autouse=True)
def _with_a_past(node: RestNode, loop_thread: LoopThread) -> None:
    loop_thread.run(node.service.propose(encode_level(MACHINE_LEVEL), 1000))
    node.service.commands.clear()


def put(client: Connection, *keys: str, value: bytes = b"") -> None:
    for key in keys:
        assert client.request("PUT", f"/v1/kv/{key}", body=value).status in (200, 201)


def compact(client: Connection, revision: object) -> Reply:
    return client.request("POST", "/v1/compact", body=json.dumps({"revision": revision}).encode())


def keys_of(page: Reply) -> list[str]:
    assert page.status == 200, page.body
    return [item["key"] for item in page.json["items"]]


def test_a_key_as_it_was(client: Connection) -> None:
    put(client, "k", value=b"1")
    put(client, "k", value=b"2")
    client.request("DELETE", "/v1/kv/k")
    first = client.request("GET", "/v1/kv/k?revision=1")
    assert (first.body, first.headers["etag"], first.headers["raftkv-revision"]) == (b"1", '"1"', "3")
    assert client.request("GET", "/v1/kv/k?revision=2&format=json").json["value"] == "2"
    assert client.request("GET", "/v1/kv/k?revision=3").status == 404
    future = client.request("GET", "/v1/kv/k?revision=4")
    assert (future.status, future.json["code"], future.json["revision"]) == (400, "future_revision", 3)


def test_what_is_compacted_is_gone_and_says_what_is_left(client: Connection) -> None:
    for value in (b"1", b"2", b"3"):
        put(client, "k", value=value)
    done = compact(client, 2)
    assert (done.status, done.json) == (200, {"compacted": 2, "revision": 3})
    assert compact(client, 1).json == {"compacted": 2, "revision": 3}
    for path in ("/v1/kv/k?revision=1", "/v1/kv?revision=1", "/v1/kv?revision=1&count=true&limit=0"):
        gone = client.request("GET", path)
        assert (gone.status, gone.json["code"], gone.json["oldest"]) == (410, "compacted", 2)
    assert client.request("GET", "/v1/kv/k?revision=2").body == b"2"
    future = compact(client, 4)
    assert (future.status, future.json["code"]) == (400, "future_revision")
    for revision in ("1", -1, 1.5, True, None, 1 << 63):
        assert compact(client, revision).status == 400


def test_a_page_run_is_of_one_revision(client: Connection) -> None:
    put(client, "a", "c", "e")
    for query, expected in (("", ["a", "c", "e"]), ("&reverse=true", ["e", "c", "a"])):
        first = client.request("GET", f"/v1/kv?limit=1{query}")
        put(client, "b", "d")
        client.request("DELETE", "/v1/kv/c")
        revision, cursor = first.json["revision"], first.json["cursor"]
        second = client.request("GET", f"/v1/kv?limit=9{query}&cursor={cursor}&count=true")
        assert keys_of(first) + keys_of(second) == expected
        assert second.json["revision"] == revision
        assert second.json["count"] == 3
        again = client.request("GET", f"/v1/kv?{query}&cursor={cursor}&revision={revision + 1}")
        assert again.status == 400, "a cursor of another revision"
        for key in ("b", "d"):
            client.request("DELETE", f"/v1/kv/{key}")
        put(client, "c")


def test_a_page_run_that_took_too_long_is_told_so(client: Connection) -> None:
    put(client, "a", "b")
    cursor = client.request("GET", "/v1/kv?limit=1").json["cursor"]
    put(client, "c")
    compact(client, 3)
    reply = client.request("GET", f"/v1/kv?cursor={cursor}")
    assert (reply.status, reply.json["code"]) == (410, "compacted")


def test_folders(client: Connection) -> None:
    put(client, "a", "b/1", "b/2/x", "c", "d/1", "%FF/1")
    page = client.request("GET", "/v1/kv?delimiter=/")
    assert keys_of(page) == ["a", "c"]
    assert page.json["prefixes"] == ["b/", "d/", {"prefix_base64": "/y8="}]
    inner = client.request("GET", "/v1/kv?prefix=b/&delimiter=/&count=true").json
    assert ([item["key"] for item in inner["items"]], inner["prefixes"]) == (["b/1"], ["b/2/"])
    assert inner["count"] == 2, "of keys, whatever folder they are in"
    assert client.request("GET", "/v1/kv?prefix=b&delimiter=/").json["prefixes"] == ["b/"]
    assert "prefixes" not in client.request("GET", "/v1/kv").json


@pytest.mark.parametrize("reverse", ["false", "true"])
def test_folders_page_by_page(client: Connection, reverse: str) -> None:
    put(client, "a", "b/1", "b/2", "c", "d/1", "d/2", "e")
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.request("GET", f"/v1/kv?delimiter=/&limit=1&reverse={reverse}{cursor}")
        assert len(page.json["items"]) + len(page.json["prefixes"]) == 1
        seen += keys_of(page) + page.json["prefixes"]
        if page.json["cursor"] is None:
            break
        cursor = f"&cursor={page.json['cursor']}"
        put(client, "b/3", "c/1")  # not at the run's revision
    assert seen == (["e", "d/", "c", "b/", "a"] if reverse == "true" else ["a", "b/", "c", "d/", "e"])


def test_a_count_needs_no_items(client: Connection) -> None:
    put(client, "a", "b", "c")
    page = client.request("GET", "/v1/kv?start=b&count=true&limit=0").json
    assert page == {"items": [], "cursor": None, "revision": 3, "count": 2}
    client.request("DELETE", "/v1/kv/b")
    assert client.request("GET", "/v1/kv?count=true&limit=0").json["count"] == 2
    assert client.request("GET", "/v1/kv?count=true&limit=0&revision=3").json["count"] == 3


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("prefix=b", ["a", "c"]),
        ("prefix=", []),
        ("start=b", ["a"]),
        ("end=b2", ["b2", "c"]),
        ("start=b&end=b2", ["a", "b2", "c"]),
        ("start=c&end=a", ["a", "b1", "b2", "c"]),
    ],
)
def test_a_range_is_deleted_at_one_revision(client: Connection, query: str, left: list[str]) -> None:
    put(client, "a", "b1", "b2", "c")
    reply = client.request("DELETE", f"/v1/kv?{query}")
    deleted = 4 - len(left)
    assert (reply.status, reply.json) == (200, {"deleted": deleted, "revision": 4 + bool(deleted)})
    assert reply.headers["raftkv-revision"] == str(4 + bool(deleted))
    assert keys_of(client.request("GET", "/v1/kv")) == left


@pytest.mark.parametrize(
    "query", ["", "?timeout=5s", "?prefix=a&start=b", "?prefix=%00", "?prefix=a&limit=1"]
)
def test_a_range_deletion_must_say_what(node: RestNode, client: Connection, query: str) -> None:
    reply = client.request("DELETE", f"/v1/kv{query}")
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert node.service.commands == []


def test_the_stores_own_keys_are_nobody_elses(node: RestNode, client: Connection) -> None:
    node.store.put(b"\0lock/x", b"mine", None)
    put(client, "a")
    for method in ("GET", "PUT", "DELETE"):
        reply = client.request(method, "/v1/kv/%00lock/x", body=b"")
        assert (reply.status, reply.json["code"]) == (400, "bad_request")
    for query in ("", "start=", "start=%00", "prefix="):
        assert keys_of(client.request("GET", f"/v1/kv?{query}")) == ["a"]
        assert keys_of(client.request("GET", f"/v1/kv?{query}&reverse=true")) == ["a"]
        assert client.request("GET", f"/v1/kv?{query}&count=true&limit=0").json["count"] == 1
    assert client.request("DELETE", "/v1/kv?end=b").json["deleted"] == 1
    assert node.store.get(b"\0lock/x") is not None
