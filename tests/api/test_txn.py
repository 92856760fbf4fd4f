"""Transactions and batches as documents: what each operation asks, and what is answered."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from raftkv.errors import UpgradeUnfinished
from tests.api.client import Connection, Reply
from tests.api.node import LIMITS, LoopThread, RestNode


def post(client: Connection, path: str, document: Any, headers: Any = ()) -> Reply:
    return client.request("POST", path, headers, json.dumps(document).encode())


def txn(client: Connection, **parts: Any) -> Any:
    reply = post(client, "/v1/txn", parts)
    assert reply.status == 200, reply.body
    return reply.json


def test_a_transaction_is_one_revision_and_tells_of_every_operation(client: Connection) -> None:
    answer = txn(
        client,
        then=[
            {"put": {"key": "a", "value": "1", "content_type": "text/plain"}},
            {"op": "put", "key_base64": "/w==", "value_base64": "/g=="},
            {"increment": {"key": "n", "by": 5}},
            {"increment": {"key": "n"}},
            {"get": {"key": "a"}},
            {"get": {"key": "none"}},
            {"get": {"prefix": "", "limit": 2, "reverse": True, "keys_only": True}},
            {"delete": {"key": "a"}},
            {"delete": {"start": "n", "end": "o"}},
            {"txn": {"if": [{"key": "a", "target": "exists"}], "else": [{"get": {"prefix": "n"}}]}},
        ],
    )
    a = {"create_revision": 1, "mod_revision": 1, "version": 1, "lease": None, "content_type": "text/plain"}
    assert answer == {
        "succeeded": True,
        "revision": 1,
        "results": [
            {"put": {"revision": 1, "version": 1, "created": True}},
            {"put": {"revision": 1, "version": 1, "created": True}},
            {"increment": {"value": 5, "version": 1}},
            {"increment": {"value": 6, "version": 1}},
            {"get": {"item": {"key": "a", "value": "1", **a}}},
            {"get": {"item": None}},
            {"get": {"items": [{"key_base64": "/w=="}, {"key": "n"}], "more": True}},
            {"delete": {"deleted": 1}},
            {"delete": {"deleted": 1}},
            {"txn": {"succeeded": False, "results": [{"get": {"items": [], "more": False}}]}},
        ],
    }
    assert client.request("GET", "/v1/kv/%FF").body == b"\xfe"
    assert client.request("GET", "/v1/kv?keys_only=true").json["items"] == [{"key_base64": "/w=="}]


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value_base64": b64encode(b"v").decode()}, True),
        ({"key": "k", "op": "!=", "value": "v"}, False),
        ({"key": "k", "target": "value", "op": "<", "value": "w"}, True),
        ({"key": "k", "target": "value", "op": ">", "value": "w"}, False),
        ({"key": "none", "value": ""}, False),
        ({"key": "k", "target": "version", "value": 2}, True),
        ({"key": "k", "target": "create_revision", "value": 1}, True),
        ({"key": "k", "target": "mod_revision", "op": ">", "value": 1}, True),
        ({"key": "none", "target": "mod_revision", "value": 0}, True),
        ({"key": "k", "target": "lease", "value": 0}, True),
        ({"key": "k", "target": "exists"}, True),
        ({"key": "k", "target": "exists", "value": False}, False),
        ({"key": "none", "target": "exists", "value": False}, True),
        ({"key": "k", "target": "exists", "op": "!=", "value": True}, False),
        ({"key": "a", "end": "l", "target": "version", "op": ">", "value": 1}, True),
        ({"key": "a", "end": "", "target": "version", "op": ">", "value": 1}, False),
    ],
)
def test_compares(client: Connection, compare: dict[str, Any], holds: bool) -> None:
    for key, value in (("k", b""), ("k", b"v"), ("z", b"")):
        client.request("PUT", f"/v1/kv/{key}", body=value)
    then, otherwise = [{"put": {"key": "r", "value": "then"}}], [{"put": {"key": "r", "value": "else"}}]
    answer = txn(client, **{"if": [compare], "then": then, "else": otherwise})
    assert answer["succeeded"] is holds
    assert client.request("GET", "/v1/kv/r").body == (b"then" if holds else b"else")


def test_what_cannot_be_done_undoes_all_of_a_transaction_and_itself_in_a_batch(client: Connection) -> None:
    client.request("PUT", "/v1/kv/text", body=b"no number")
    operations = [{"put": {"key": "a", "value": "1"}}, {"increment": {"key": "text"}}, {"get": {"key": "a"}}]
    refused = post(client, "/v1/txn", {"then": operations})
    assert (refused.status, refused.json["code"]) == (409, "not_a_number")
    assert client.request("GET", "/v1/kv/a").status == 404

    reply = post(client, "/v1/batch", {"ops": operations})
    assert (reply.status, reply.json["revision"]) == (200, 2)
    done, failed, found = reply.json["results"]
    assert done == {"put": {"revision": 2, "version": 1, "created": True}}
    assert failed["error"]["code"] == "not_a_number"
    assert found["get"]["item"]["value"] == "1"


def test_a_batch_takes_a_revision_for_each_operation_that_changes_something(client: Connection) -> None:
    puts: list[Any] = [{"put": {"key": f"k{number}", "value": ""}} for number in range(3)]
    operations = [*puts, {"delete": {"key": "none"}}, {"txn": {"then": puts}}, {"delete": {"prefix": "k"}}]
    answer = post(client, "/v1/batch", {"ops": operations}).json
    assert [each["put"]["revision"] for each in answer["results"][:3]] == [1, 2, 3]
    assert answer["results"][4]["txn"]["succeeded"] is True
    assert answer["results"][5] == {"delete": {"deleted": 3}}
    assert answer["revision"] == 5


def test_a_lease_and_a_time_to_live(client: Connection) -> None:
    answer = txn(client, then=[{"put": {"key": "a", "value": "", "ttl": "30s"}}])
    lease = answer["results"][0]["put"]["lease"]
    assert lease > 0
    txn(client, then=[{"put": {"key": "b", "value": "", "lease": lease}}])
    assert client.request("GET", "/v1/kv/b?format=json").json["lease"] == lease
    assert client.request("GET", "/v1/kv/b").headers["raftkv-lease"] == str(lease)
    refused = post(client, "/v1/txn", {"then": [{"put": {"key": "b", "value": "", "lease": lease + 1}}]})
    assert (refused.status, refused.json["code"]) == (404, "no_such_lease")


def test_in_msgpack_bytes_are_bytes(client: Connection) -> None:
    packed = [("Content-Type", "application/msgpack")]
    body = msgpack.packb({"ops": [{"put": {"key": b"\xff", "value": b"\xfe"}}, {"get": {"key": b"\xff"}}]})
    reply = client.request("POST", "/v1/batch", packed, body)
    assert reply.headers["content-type"] == "application/msgpack"
    item = msgpack.unpackb(reply.body)["results"][1]["get"]["item"]
    assert (item["key"], item["value"], item["version"]) == (b"\xff", b"\xfe", 1)

    in_json = client.request("POST", "/v1/batch", [*packed, ("Accept", "application/json")], body)
    assert in_json.json["results"][1]["get"]["item"]["key_base64"] == "/w=="
    accept = [("Accept", "application/msgpack")]
    assert msgpack.unpackb(client.request("GET", "/v1/kv", accept).body)["items"][0]["key"] == b"\xff"
    assert msgpack.unpackb(client.request("GET", "/v1/kv/%FF", accept).body)["value"] == b"\xfe"
    refused = client.request("POST", "/v1/txn", [*packed, *accept], b"\xc1")
    assert (refused.status, refused.headers["content-type"]) == (400, "application/problem+json")


PUT = {"put": {"key": "k", "value": ""}}
DEEP: dict[str, Any] = {"then": [PUT]}
for _ in range(9):
    DEEP = {"then": [{"txn": DEEP}]}


@pytest.mark.parametrize(
    "document",
    [
        [],
        1,
        {"iff": []},
        {"if": {}},
        {"then": [1]},
        {"then": [{}]},
        {"then": [{"put": {"key": "k"}}]},
        {"then": [{"put": {"value": "v"}}]},
        {"then": [{"put": {"key": "", "value": "v"}}]},
        {"then": [{"put": {"key": "\0k", "value": "v"}}]},
        {"then": [{"put": {"key": 1, "value": "v"}}]},
        {"then": [{"put": {"key": "k", "value": 1}}]},
        {"then": [{"put": {"key": "k", "value": "v", "value_base64": "dg=="}}]},
        {"then": [{"put": {"key": "k", "value_base64": "d"}}]},
        {"then": [{"put": {"key": "k", "value": "", "content_type": "a\r\nb"}}]},
        {"then": [{"put": {"key": "k", "value": "", "ttl": "1ms"}}]},
        {"then": [{"put": {"key": "k", "value": "", "ttl": 5}}]},
        {"then": [{"put": {"key": "k", "value": "", "ttl": "5s", "lease": 1}}]},
        {"then": [{"put": {"key": "k", "value": "", "lease": 0}}]},
        {"then": [{"put": {"key": "k", "value": ""}, "get": {"key": "k"}}]},
        {"then": [{"op": "putt", "key": "k", "value": ""}]},
        {"then": [{"get": {}}]},
        {"then": [{"get": {"key": "k", "limit": 1}}]},
        {"then": [{"get": {"prefix": "k", "start": "a"}}]},
        {"then": [{"get": {"prefix": "k", "limit": 0}}]},
        {"then": [{"get": {"prefix": "\0"}}]},
        {"then": [{"get": {"prefix": "k", "reverse": 1}}]},
        {"then": [{"delete": {}}]},
        {"then": [{"delete": {"key": "\0k"}}]},
        {"then": [{"increment": {"key": "k", "by": 1.5}}]},
        {"then": [{"increment": {"key": "k", "by": True}}]},
        {"then": [{"increment": {"key": "k", "by": 1 << 63}}]},
        {"if": [{"key": "k"}]},
        {"if": [{"key": "k", "value": 1}]},
        {"if": [{"key": "k", "target": "version", "value": "1"}]},
        {"if": [{"key": "k", "target": "version", "value": -1}]},
        {"if": [{"key": "k", "target": "version"}]},
        {"if": [{"key": "k", "target": "exists", "value": 1}]},
        {"if": [{"key": "k", "target": "size", "value": 1}]},
        {"if": [{"key": "k", "op": "=", "value": "v"}]},
        {"if": [{"key": "\0k", "value": "v"}]},
        DEEP,
    ],
)
def test_what_says_nothing_clear_is_refused(node: RestNode, client: Connection, document: Any) -> None:
    reply = post(client, "/v1/txn", document)
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert node.service.commands == []
    if isinstance(document, dict) and "then" in document and document is not DEEP:
        batch = post(client, "/v1/batch", {"ops": document["then"]})
        assert (batch.status, batch.json["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"then": [{"put": {"key": "\\ud800", "value": ""}}]}']
)
@pytest.mark.parametrize("path", ["/v1/txn", "/v1/batch", "/v1/compact"])
def test_what_is_no_document_is_refused(client: Connection, path: str, body: bytes) -> None:
    assert client.request("POST", path, body=body).status == 400


@pytest.mark.parametrize("path", ["/v1/txn", "/v1/batch"])
def test_what_is_as_deep_as_can_be_is_done(node: RestNode, client: Connection, path: str) -> None:
    document: dict[str, Any] = {"then": [{"put": {"key": "deep", "value": "x"}}]}
    for _ in range(7):
        document = {"then": [{"txn": document}]}
    whole, deeper = document, {"then": [{"txn": document}]}
    if path == "/v1/batch":
        whole, deeper = ({"ops": [{"txn": each}]} for each in (whole, deeper))
    assert post(client, path, whole).status == 200
    assert client.request("GET", "/v1/kv/deep").body == b"x"
    proposed = len(node.service.commands)
    reply = post(client, path, deeper)
    assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert "deeper than 8" in reply.json["detail"]
    assert len(node.service.commands) == proposed


def test_what_it_puts_and_deletes_has_no_revision_that_another_will_have(client: Connection) -> None:
    gone = [{"put": {"key": "a", "value": "1"}}, {"delete": {"key": "a"}}]
    answer = txn(client, then=gone)
    assert answer["results"] == [
        {"put": {"revision": 0, "version": 1, "created": True}},
        {"delete": {"deleted": 1}},
    ]
    answer = txn(client, then=[{"txn": {"then": gone}}, PUT])
    assert answer["revision"] == answer["results"][0]["txn"]["results"][0]["put"]["revision"] == 1


def test_an_end_that_no_key_is_before_is_a_mistake(client: Connection) -> None:
    for document in ({"get": {"start": "a", "end": ""}}, {"delete": {"start": "a", "end_base64": ""}}):
        reply = post(client, "/v1/txn", {"then": [document]})
        assert (reply.status, reply.json["code"]) == (400, "bad_request")
    for method, path in (("GET", "/v1/kv"), ("DELETE", "/v1/kv"), ("GET", "/v1/watch")):
        reply = client.request(method, f"{path}?start=a&end=")
        assert (reply.status, reply.json["code"]) == (400, "bad_request")
        assert "leave it out" in reply.json["detail"]


def test_limits(loop_thread: LoopThread) -> None:
    node = RestNode(loop_thread, replace(LIMITS, max_txn_operations=5, max_batch_operations=7))
    compare, get = {"key": "k", "value": ""}, {"get": {"key": "k"}}
    try:
        with Connection(node) as client:
            for path, document, status in (
                ("/v1/txn", {"if": [compare] * 2, "then": [get] * 2, "else": [get]}, 200),
                ("/v1/txn", {"if": [compare] * 2, "then": [get] * 2, "else": [get] * 2}, 413),
                ("/v1/txn", {"then": [{"txn": {"then": [get] * 4}}]}, 200),
                ("/v1/txn", {"then": [{"txn": {"then": [get] * 5}}]}, 413),
                ("/v1/batch", {"ops": [get] * 7}, 200),
                ("/v1/batch", {"ops": [get] * 8}, 413),
                ("/v1/txn", {"then": [{"get": {"key": "k" * 65}}]}, 413),
                ("/v1/txn", {"then": [{"put": {"key": "k", "value": "v" * 4097}}]}, 413),
                ("/v1/batch", {"ops": [{"get": {"prefix": "", "limit": 1000}}] * 7}, 200),
            ):
                assert post(client, path, document).status == status, document
    finally:
        node.close()


def test_items_that_are_asked_for_have_a_bound_in_all(client: Connection) -> None:
    ranges = [{"get": {"prefix": "", "limit": 1000}}]
    assert post(client, "/v1/batch", {"ops": ranges * 10}).status == 200
    assert post(client, "/v1/batch", {"ops": ranges * 11}).status == 413


def test_a_cluster_that_does_not_understand_it_yet(node: RestNode, client: Connection) -> None:
    async def require(feature: str, timeout_ms: float) -> None:
        raise UpgradeUnfinished(f"{feature} can't be used yet", retry_after_ms=1000)

    node.service.require = require  # type: ignore[method-assign]
    asked = [
        post(client, "/v1/txn", {"then": [PUT]}),
        post(client, "/v1/batch", {"ops": [PUT]}),
        post(client, "/v1/compact", {"revision": 0}),
        client.request("DELETE", "/v1/kv?prefix="),
        client.request("PUT", "/v1/kv/a?ttl=5s", body=b""),
        client.request("PUT", "/v1/kv/a", [("Idempotency-Key", "t")], b""),
        client.request("DELETE", "/v1/kv/a", [("Idempotency-Key", "t")]),
    ]
    for reply in asked:
        assert (reply.status, reply.json["code"]) == (503, "upgrade_unfinished")
    assert node.service.commands == []
    assert client.request("PUT", "/v1/kv/a", body=b"").status == 201
