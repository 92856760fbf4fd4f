"""Requests of any shape on a live REST server: an answer of the documented form, and the node goes on."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import RaftkvError
from raftkv.ports import PeerView
from tests.api.client import Connection, Reply, chunked, quote, request_bytes
from tests.api.node import N2, LoopThread, RestNode
from tests.fuzz.budget import budget
from tests.wire.strategies import json_values

CODES = {error.code: error.status for error in RaftkvError.__subclasses__()}
NEVER = ("internal", "no_quorum", "shutting_down", "timeout", "too_many_requests")


@pytest.fixture(scope="module")
def node() -> Iterator[RestNode]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raftkv.api.app._LINGER_S", 0.1)
        thread = LoopThread()
        node = RestNode(thread)
        for index in range(30):
            node.store.put(b"k%d" % index, b"v" * index, "text/plain" if index % 2 else None)
        node.store.put(b"\xff\x00", b"\xfe", None)
        node.service.status_report = STATUS | {"leader_url": None, "cluster_id": "c", "peer_address": "n1:1"}
        yield node
        node.close()
        thread.close()


STATUS = {
    "node": "n1",
    "url": "http://n1:8001",
    "leader": "n1",
    "role": "leader",
    "term": 3,
    "commit_index": 7,
    "last_applied": 7,
    "last_index": 7,
    "revision": 5,
}


def sound(reply: Reply) -> None:
    """A success, or a problem document with a code that the client's own mistake explains."""
    assert reply.status < 500, reply.body
    if reply.status < 400 or not reply.body:
        return
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json
    assert {"type", "title", "status", "detail", "code", "outcome"} <= set(problem)
    assert CODES[problem["code"]] == problem["status"] == reply.status
    assert problem["code"] not in NEVER
    assert problem["outcome"] == "not_applied"
    assert problem["type"] == f"urn:raftkv:error:{problem['code']}"


# -- paths and queries -------------------------------------------------------------------------------------

METHODS = st.sampled_from(["GET", "GET", "PUT", "HEAD", "DELETE", "POST"])
DIGITS = st.sampled_from(
    ["0", "-1", "1e9", "9" * 18, "9" * 19, "9" * 4000, "0x10", "1_000", "٣", "+5", " 7", "1.0", "NaN"]
)
FORGED = (
    st.binary(max_size=20)
    | st.binary(max_size=20).map(lambda key: b"f" + key)
    | st.just(b"r" + b"\xff" * 200)
)
CURSORS = FORGED.map(lambda data: base64.urlsafe_b64encode(data).decode()) | st.sampled_from(
    ["Zg", "=", "Zg==", "Zg===", "é"]
)
ODD = st.sampled_from(
    [
        "%00",
        "%",
        "%zz",
        "%C3%28",
        "%ED%A0%80",
        "%F0%9F%98%80",
        "+",
        "%2B",
        "%2F..%2F",
        "#",
        "'",
        '"',
        "\\",
        "|",
    ]
)
TEXTS = ODD | st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=8)
PARTS = st.one_of(
    st.builds("limit={}".format, DIGITS | st.integers(0, 1001).map(str)),
    st.builds(
        "timeout={}{}".format,
        DIGITS | st.integers(1, 50).map(str),
        st.sampled_from(["ms", "s", "h", "", "d", "ms "]),
    ),
    st.builds("cursor={}".format, CURSORS),
    st.builds("if_revision={}".format, DIGITS | st.integers(0, 40).map(str)),
    st.builds("if_absent={}".format, st.sampled_from(["true", "1", "", "yes"])),
    st.builds(
        "{}={}".format,
        st.sampled_from(["prefix", "start", "end"]),
        TEXTS | st.sampled_from(["k", "k2", "%FF"]),
    ),
    st.builds(
        "{}={}".format, st.sampled_from(["reverse", "keys_only"]), st.sampled_from(["true", "0", "", "2"])
    ),
    st.builds("consistency={}".format, st.sampled_from(["stale", "linearizable", "strong", ""])),
    st.builds("format={}".format, st.sampled_from(["json", "raw", "xml"])),
    TEXTS,
    st.sampled_from(["", "=", "&&", "=x", "limit", "limit=1=2", "x=1"]),
)
QUERIES = st.lists(PARTS, max_size=4).map("&".join)
KEYS = st.sampled_from(["k1", "k2", "k3", "new", ""]) | TEXTS | st.binary(max_size=80).map(quote)
PATHS = KEYS.map("/v1/kv/{}".format) | st.sampled_from(
    [
        "/v1/kv",
        "/v1/kv",
        "/v1/kv",
        "/v1/status",
        "/v1/cluster",
        "/livez",
        "/readyz",
        "//v1/kv",
        "/v1/kv/../kv",
        "*",
        "",
    ]
)
TAGS = st.one_of(
    st.sampled_from(
        [
            "*",
            '"',
            '""',
            'W/"1"',
            '"1", "2"',
            '"1" "2"',
            "*, *",
            ",,,",
            '"1",,"2",',
            "w/1",
            '"\t"',
            "W/",
            '"1"x',
        ]
    ),
    st.integers(0, 40).map('"{}"'.format),
    DIGITS.map('"{}"'.format),
    st.lists(st.integers(0, 9).map('"{}"'.format), min_size=100, max_size=400).map(", ".join),
    st.text(st.sampled_from('"W/,* \t1'), max_size=12),
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["If-Match", "If-None-Match"]), TAGS)
    | st.tuples(st.sampled_from(["Accept", "Content-Type"]), TEXTS | st.just("x" * 300) | st.just("ü/ü"))
    | st.tuples(st.just("X-Other"), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9)),
    max_size=3,
)
BODIES = st.none() | st.binary(max_size=20) | st.sampled_from([b"", b"v" * 4096, b"v" * 4097, b"v" * 20_000])


@given(method=METHODS, path=PATHS, query=QUERIES, headers=HEADERS, body=BODIES, in_chunks=st.booleans())
@budget(100)
def test_requests(
    node: RestNode,
    *,
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes | None,
    in_chunks: bool,
) -> None:
    target = f"{path}?{query}" if query else path
    if in_chunks and body is not None:
        headers, body = [*headers, ("Transfer-Encoding", "chunked")], chunked(*([body] if body else []))
    with Connection(node) as client:
        client.send(request_bytes(method, target.encode(), headers, body))
        sound(client.reply(method))
    with Connection(node) as client:
        assert client.request("GET", "/livez").status == 200


@given(CURSORS, st.booleans(), st.integers(1, 40))
@budget(40)
def test_a_forged_cursor_shows_no_more_than_a_listing(
    node: RestNode, cursor: str, reverse: bool, limit: int
) -> None:
    with Connection(node) as client:
        flag = "true" if reverse else "false"
        target = f"/v1/kv?prefix=k1&limit={limit}&reverse={flag}&cursor={quote(cursor.encode())}"
        reply = client.request("GET", target)
        sound(reply)
        if reply.status == 200:
            keys = [item["key"] for item in reply.json["items"]]
            assert all(key.startswith("k1") for key in keys)
            assert len(keys) <= limit
            assert keys == sorted(keys, reverse=reverse)


# -- what peers say of themselves ----------------------------------------------------------------------------

REPORTS = st.dictionaries(
    st.sampled_from([*STATUS, "x"]), json_values | st.sampled_from([float("inf"), float("nan")])
)


@given(st.none() | REPORTS, st.booleans())
@budget(60)
def test_any_report_of_a_peer_is_shown(node: RestNode, report: Any, connected: bool) -> None:
    """A peer's status is its own word, of any JSON type: it must not take this node's picture away."""
    node.service.peer_views = [PeerView(N2, "n2:1", connected, "http://n2", report, 1.0)]
    with Connection(node) as client:
        reply = client.request("GET", "/v1/cluster")
    assert reply.status == 200, reply.body
    own, other = reply.json["members"]
    assert (own["node"], own["role"], own["commit_index"]) == ("n1", "leader", 7)
    assert other["node"] == "n2"
    for name in ("term", "commit_index", "last_applied", "last_index", "revision", "lag"):
        assert type(other[name]) is int or other[name] is None, name
    assert type(other["role"]) is str or other["role"] is None


# -- beneath HTTP --------------------------------------------------------------------------------------------

SOUND = [
    request_bytes("GET", "/livez"),
    request_bytes("PUT", "/v1/kv/raw", body=b"value"),
    request_bytes("PUT", "/v1/kv/raw", [("Transfer-Encoding", "chunked")], chunked(b"va", b"lue")),
    request_bytes("GET", "/v1/kv?limit=2"),
    request_bytes("DELETE", "/v1/kv/raw", [("If-Match", '"1"')]),
]
NOISE = st.binary(max_size=20) | st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b"GET ",
        b" HTTP/1.1\r\n",
        b"Content-Length: 5\r\n",
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
    ]
)


@st.composite
def pipelines(draw: st.DrawFn) -> list[bytes]:
    """Requests one after the other, some of them cut, some with noise within, in pieces of any size."""
    data = b""
    for _ in range(draw(st.integers(1, 4))):
        request = draw(st.sampled_from(SOUND))
        cut = draw(st.just(len(request)) | st.integers(0, len(request)))
        data += request[:cut] + draw(st.just(b"") | NOISE) + (request[cut:] if draw(st.booleans()) else b"")
    pieces = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [data[start:end] for start, end in zip([0, *pieces], [*pieces, len(data)], strict=True)]


@given(pipelines())
@budget(60)
def test_pipelined_halves(node: RestNode, pieces: list[bytes]) -> None:
    with Connection(node) as client:
        try:
            for piece in pieces:
                client.send(piece)
        except OSError:
            pass  # it has heard enough
        client.end()
        while not client.is_closed():
            assert client.reply().status < 500
    with Connection(node) as client:
        assert client.request("GET", "/livez").status == 200


CHUNKED = b"PUT /v1/kv/flood HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    "one header": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ", b"y" * 1000),
    "a target": (b"GET /v1/kv/", b"k" * 1000),
    "a method": (b"", b"GET" * 300),
    "chunks": (CHUNKED, b"400\r\n" + b"v" * 0x400 + b"\r\n"),
    "chunks of one byte": (CHUNKED, b"1\r\nv\r\n" * 200),
    "a chunk's extension": (CHUNKED + b"5;x=", b"y" * 1000),
    "a chunk's length": (CHUNKED, b"0" * 1000),
    "trailers": (CHUNKED + b"1\r\nv\r\n0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    "a body larger than it said": (
        b"PUT /v1/kv/flood HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
        b"v" * 1000,
    ),
    "requests whose answers nobody reads": (b"", request_bytes("GET", "/v1/kv/k1") * 20),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_takes_no_memory(node: RestNode, name: str) -> None:
    """16 MiB, as far as the node takes them: it keeps little of it, and serves others meanwhile."""
    first, more = FLOODS[name]
    more *= -(-65_536 // len(more))
    with Connection(node) as warm:
        assert warm.request("GET", "/livez").status == 200
    with Connection(node) as client:
        client._socket.settimeout(0.5)
        tracemalloc.start()
        try:
            client.send(first)
            for _ in range((16 << 20) // len(more)):
                client.send(more)
        except OSError:
            pass  # it has heard enough, or doesn't listen any more
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        with Connection(node) as other:
            assert other.request("GET", "/livez").status == 200
        assert peak < 12 << 20, peak  # trailers: what is paused in asyncio's buffers
    node.wait_for_no_connections()
