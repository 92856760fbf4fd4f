"""PUT, GET, HEAD and DELETE of a key: bytes in, bytes out, and what the headers and the JSON say."""

from __future__ import annotations

from base64 import b64encode

import pytest

from tests.api.client import Connection, quote
from tests.api.node import RestNode


def test_put_creates_then_replaces(client: Connection) -> None:
    created = client.request("PUT", "/v1/kv/a", body=b"1")
    assert created.status == 201
    assert created.json == {"key": "a", "revision": 1, "version": 1, "created": True}
    assert created.body.endswith(b"\n")
    assert created.headers["content-type"] == "application/json"
    assert created.headers["etag"] == '"1"'
    assert created.headers["raftkv-revision"] == "1"
    replaced = client.request("PUT", "/v1/kv/a", body=b"2")
    assert replaced.status == 200
    assert replaced.json == {"key": "a", "revision": 2, "version": 2, "created": False}
    assert replaced.headers["etag"] == '"2"'


def test_get_gives_the_raw_value(client: Connection) -> None:
    client.request("PUT", "/v1/kv/other", body=b"")
    value = bytes(range(256))
    client.request("PUT", "/v1/kv/a", body=value)
    client.request("PUT", "/v1/kv/a", body=value)
    reply = client.request("GET", "/v1/kv/a")
    assert (reply.status, reply.body) == (200, value)
    expected = {
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
        "etag": '"3"',
        "raftkv-revision": "3",
        "raftkv-create-revision": "2",
        "raftkv-mod-revision": "3",
        "raftkv-version": "2",
        "raftkv-node": "n1",
        "raftkv-leader": "n2",
        "raftkv-consistency": "linearizable",
        "content-length": "256",
    }
    assert expected.items() <= reply.headers.items()
    assert "raftkv-staleness-ms" not in reply.headers


def test_an_empty_value_is_a_value(client: Connection) -> None:
    assert client.request("PUT", "/v1/kv/a").status == 201
    reply = client.request("GET", "/v1/kv/a")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("target", ["/v1/kv/a", "/v1/kv/a?format=json", "/v1/kv/missing", "/v1/kv", "/livez"])
def test_head_is_get_without_a_body(client: Connection, target: str) -> None:
    client.request("PUT", "/v1/kv/a", body=b"value")
    get = client.request("GET", target)
    head = client.request("HEAD", target)
    assert (head.status, head.body) == (get.status, b"")
    del get.headers["date"], head.headers["date"]
    assert head.headers == get.headers


def test_delete(client: Connection) -> None:
    client.request("PUT", "/v1/kv/a", body=b"1")
    reply = client.request("DELETE", "/v1/kv/a")
    assert (reply.status, reply.json) == (200, {"deleted": 1, "revision": 2})
    assert reply.headers["raftkv-revision"] == "2"
    again = client.request("DELETE", "/v1/kv/a")
    assert (again.status, again.json) == (200, {"deleted": 0, "revision": 2})
    gone = client.request("GET", "/v1/kv/a")
    assert (gone.status, gone.json["code"], gone.json["revision"]) == (404, "key_not_found", 2)


def test_without_a_leader_the_header_is_left_out(node: RestNode, client: Connection) -> None:
    node.service.leader = None
    assert "raftkv-leader" not in client.request("PUT", "/v1/kv/a").headers


# -- content types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("text/html; charset=utf-8", "text/html; charset=utf-8"),
        ("Image/PNG", "Image/PNG"),
        ("text/é", "text/é"),
        ("x" * 256, "x" * 256),
        ("application/x-www-form-urlencoded", "application/octet-stream"),  # curl's own idea
        ("", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_the_content_type_is_kept(client: Connection, sent: str | None, echoed: str) -> None:
    client.request("PUT", "/v1/kv/a", [] if sent is None else [("Content-Type", sent)], b"v")
    assert client.request("GET", "/v1/kv/a").headers["content-type"] == echoed
    kept = client.request("GET", "/v1/kv/a?format=json").json["content_type"]
    assert (kept or "application/octet-stream") == echoed


def test_each_put_says_the_content_type_anew(client: Connection) -> None:
    client.request("PUT", "/v1/kv/a", [("Content-Type", "text/plain")], b"v")
    client.request("PUT", "/v1/kv/a", [], b"v")
    assert client.request("GET", "/v1/kv/a?format=json").json["content_type"] is None


@pytest.mark.parametrize("content_type", [b"text/\xff", b"text/\x7f", b"text/a\tb", b"x" * 257])
def test_a_content_type_that_a_header_can_not_carry(
    node: RestNode, client: Connection, content_type: bytes
) -> None:
    reply = client.request("PUT", "/v1/kv/a", [("Content-Type", content_type)], b"v")
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert node.store.revision == 0


@pytest.mark.parametrize(
    "content_type", [b"text/a\rX-Evil: 1", b"text/a\nX-Evil: 1", b"text/a\x00", b"a\x01"]
)
def test_a_content_type_injects_no_header(node: RestNode, content_type: bytes) -> None:
    """A bare line feed ends a header for the parser, if it takes it at all: then it is the request's own."""
    with Connection(node) as client:
        client.send(b"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Type: ")
        client.send(content_type + b"\r\n\r\nv")
        assert client.reply("PUT").status in (400, 201)
    with Connection(node) as client:
        assert "x-evil" not in client.request("GET", "/v1/kv/a").headers


def test_an_encoded_body_is_kept_as_it_came(client: Connection) -> None:
    """Nothing is decompressed: a value is bytes, and a bomb stays small."""
    assert client.request("PUT", "/v1/kv/a", [("Content-Encoding", "gzip")], b"no gzip").status == 201
    assert client.request("GET", "/v1/kv/a").body == b"no gzip"


# -- JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "accept"),
    [
        ("?format=json", None),
        ("?format=json", "text/html"),
        ("", "application/json"),
        ("", "text/html, application/json;q=0.9"),
    ],
)
def test_the_envelope(client: Connection, target: str, accept: str | None) -> None:
    client.request("PUT", "/v1/kv/a", [("Content-Type", "text/plain")], "żółw".encode())
    reply = client.request("GET", f"/v1/kv/a{target}", [] if accept is None else [("Accept", accept)])
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["etag"] == '"1"'
    assert reply.json == {
        "key": "a",
        "value": "żółw",
        "create_revision": 1,
        "mod_revision": 1,
        "version": 1,
        "lease": None,
        "content_type": "text/plain",
    }


def test_format_raw_overrides_accept(client: Connection) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    reply = client.request("GET", "/v1/kv/a?format=raw", [("Accept", "application/json")])
    assert reply.body == b"v"


def test_what_is_not_text_is_base64(client: Connection) -> None:
    key, value = b"\xff\x00", b"\xfe"
    put = client.request("PUT", f"/v1/kv/{quote(key)}", body=value)
    assert put.json["key_base64"] == b64encode(key).decode()
    assert "key" not in put.json
    got = client.request("GET", f"/v1/kv/{quote(key)}?format=json").json
    assert got["key_base64"] == b64encode(key).decode()
    assert got["value_base64"] == b64encode(value).decode()
    assert "value" not in got


# -- keys ------------------------------------------------------------------------------------------------


def test_a_key_is_any_bytes_but_for_a_nul_at_its_beginning(node: RestNode, client: Connection) -> None:
    assert client.request("PUT", "/v1/kv/%00", body=b"").status == 400
    for byte in range(1, 256):
        key = bytes([byte])
        assert client.request("PUT", f"/v1/kv/{quote(key)}", body=key).status == 201
        assert client.request("GET", f"/v1/kv/%{byte:02x}").body == key
    assert [key for key, _ in node.store.page(b"", None, 1000).items] == [bytes([b]) for b in range(1, 256)]
    assert client.request("PUT", "/v1/kv/a%00", body=b"").status == 201


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/b", b"a/b"),
        ("a%2Fb", b"a/b"),
        ("a/../b", b"a/../b"),
        ("..", b".."),
        (".", b"."),
        ("a/./b/", b"a/./b/"),
        ("/a//b", b"/a//b"),
        ("%2E%2E/a", b"../a"),
        ("a+b", b"a+b"),
        ("a%20b", b"a b"),
        ("a%2520", b"a%20"),
        ("a:b@c", b"a:b@c"),
        ("http://x/y", b"http://x/y"),
        ("a;b=c,d", b"a;b=c,d"),
        ("~-_.!$&'()*", b"~-_.!$&'()*"),
        ("%C3%A9", "é".encode()),
        ("%3Fa%23b", b"?a#b"),
        ("%01%0d%0a", b"\1\r\n"),
        ('[]{}|^`"<>', b'[]{}|^`"<>'),
    ],
)
def test_a_path_is_taken_as_it_is(node: RestNode, client: Connection, path: str, key: bytes) -> None:
    assert client.request("PUT", f"/v1/kv/{path}", body=b"v").status == 201
    assert [key for key, _ in node.store.page(b"", None, 9).items] == [key]
    assert client.request("GET", f"/v1/kv/{path}").body == b"v"


def test_the_absolute_form_of_a_request(client: Connection) -> None:
    client.request("PUT", "/v1/kv/a/../b", body=b"v")
    assert client.request("GET", "http://elsewhere:80/v1/kv/a/../b").body == b"v"


# -- consistency and timeouts ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/v1/kv/a", "/v1/kv"])
def test_consistency(node: RestNode, client: Connection, target: str) -> None:
    client.request("PUT", "/v1/kv/a", body=b"v")
    node.service.timeouts_ms.clear()
    stale = client.request("GET", f"{target}?consistency=stale")
    assert stale.headers["raftkv-consistency"] == "stale"
    assert stale.headers["raftkv-staleness-ms"] == "12"
    assert node.service.timeouts_ms == [], "a stale read asks nobody"
    for query in ("", "?consistency=linearizable"):
        reply = client.request("GET", f"{target}{query}")
        assert reply.headers["raftkv-consistency"] == "linearizable"
    assert len(node.service.timeouts_ms) == 2
    node.service.staleness = None
    unknown = client.request("GET", f"{target}?consistency=stale")
    assert (unknown.status, unknown.json["code"]) == (503, "no_quorum")


@pytest.mark.parametrize(
    ("text", "timeout_ms"), [("1ms", 1), ("500ms", 500), ("2s", 2000), ("1m", 60_000), ("60000ms", 60_000)]
)
def test_timeout(node: RestNode, client: Connection, text: str, timeout_ms: float) -> None:
    client.request("PUT", f"/v1/kv/a?timeout={text}", body=b"v")
    client.request("GET", f"/v1/kv/a?timeout={text}")
    client.request("GET", f"/v1/kv?timeout={text}")
    client.request("DELETE", f"/v1/kv/a?timeout={text}")
    inside_ms = timeout_ms * 0.95  # the rest is for the way back
    assert node.service.timeouts_ms == [pytest.approx(inside_ms)] * 4
    client.request("DELETE", "/v1/kv/a")
    assert node.service.timeouts_ms[-1] == pytest.approx(4750)
