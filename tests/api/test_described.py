"""A real node, driven from its own OpenAPI document: each answer is one that the document has."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

from raftkv import Node, node_config
from raftkv.testing.cluster import free_ports
from tests.api.described import DOCUMENT, OPERATIONS, Caller, calls, has_parts, unpack
from tests.api.node import DEADLINE_S, LoopThread

# What a healthy node may answer with a status of 500 or more: (method and path, code).
EXPECTED = {
    ("POST /v1/cluster/leader", "no_successor"),  # it is alone
}


@pytest.fixture(scope="module")
def caller(loop_thread: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Of a node that is its whole cluster."""
    directory: Path = tmp_path_factory.mktemp("described")
    port, peer_port = free_ports(2)
    peer = f"127.0.0.1:{peer_port}"
    config = node_config("n1", directory, listen=f"127.0.0.1:{port}", peer_listen=peer, cluster=f"n1={peer}")
    node = Node(config)
    loop_thread.run(node.start())
    caller = Caller(node.url)
    deadline = time.monotonic() + DEADLINE_S
    while not caller.is_ready():
        assert time.monotonic() < deadline, "it doesn't lead"
    yield caller
    assert caller.is_ready(), "after all these calls it serves no more"
    caller.close()
    loop_thread.run(node.stop())


@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_documented(caller: Caller, label: str) -> None:
    """Those to sound requests, and to others."""
    is_head = label.startswith("HEAD")
    answered(caller, label, GenerationMode.POSITIVE, 1 if is_head else 6)
    if not is_head and has_parts(label):
        answered(caller, label, GenerationMode.NEGATIVE, 2)


def answered(caller: Caller, label: str, mode: GenerationMode, times: int) -> None:
    @settings(
        max_examples=times,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(call=calls(label, mode))
    def answer(call: tuple[Case, str]) -> None:
        response = caller.call(*call)
        if response.status_code >= 500:
            code = "" if label.startswith("HEAD") else response.json()["code"]
            is_unreached = code in ("", "revision_not_reached") and "min_revision" in call[0].query
            assert is_unreached or (label, code) in EXPECTED

    answer()


def test_streams_are_documented(caller: Caller) -> None:
    """Their first events, of each kind: of nothing else, and all there is."""
    first = caller.do("PUT /v1/kv/{key}", {"key": "watched"}, body=b"1").json()["revision"]
    caller.do("PUT /v1/kv/{key}", {"key": "watched"}, body=b"\xff")
    caller.do("DELETE /v1/kv/{key}", {"key": "watched"})
    query = {"key": "watched", "from": first, "prev": "true"}
    changes = caller.do("GET /v1/watch", query=query, events=4)
    assert re.findall(r"event: (\w+)", changes.text) == ["progress", "put", "put", "delete"]

    for held in (None, {"ttl": "1h", "value_base64": "/w=="}):
        if held is not None:
            caller.do("POST /v1/elections/{name}", {"name": "watched"}, body=held)
        caller.do("GET /v1/elections/{name}/observe", {"name": "watched"})
    listed = {"id": "i", "address": "there:1", "ttl": "1h", "meta": {"zone": [1]}}
    caller.do("POST /v1/services/{name}", {"name": "watched"}, body=listed)
    caller.do("GET /v1/services/{name}", {"name": "watched"}, query={"watch": "true"})


def test_an_envelope_has_what_is_documented(caller: Caller) -> None:
    """The answer may be a value of any type, too: the document can't tell which it is."""
    caller.do("PUT /v1/kv/{key}", {"key": "enveloped"}, body=b"v")
    schema = DOCUMENT["components"]["schemas"]["Envelope"]
    for accept in ("application/json", "application/msgpack"):
        answer = caller.do("GET /v1/kv/{key}", {"key": "enveloped"}, accept=accept)
        found = unpack(None, answer) if "msgpack" in accept else answer.json()
        assert found.keys() == {*schema["required"], "key", "value"}


def test_a_head_is_documented_as_its_get() -> None:
    for methods in DOCUMENT["paths"].values():
        if "head" in methods:
            assert methods["head"] == methods["get"] | {"operationId": f"{methods['get']['operationId']}Head"}
