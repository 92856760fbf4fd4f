"""``/v1/cluster/members``: what is asked of the service, and what is refused before."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from raftkv.consensus.types import AddLearner, Change, Move, NodeId, Promote, Remove
from raftkv.errors import ChangeRefused, NoQuorum, Outcome, RaftkvError, TimedOut
from tests.api.client import Connection
from tests.api.node import RestNode

PATH = "/v1/cluster/members"
N4 = NodeId("n4")

GOOD: list[tuple[str, str, bytes, Change, bool]] = [
    ("POST", PATH, b'{"id": "n4", "address": "d:4"}', AddLearner(N4, "d:4", True, None), False),
    (
        "POST",
        PATH,
        b'{"id": "n4", "address": "[::1]:4", "promote": false, "replaces": "n1", "force": true}',
        AddLearner(N4, "[::1]:4", False, NodeId("n1")),
        True,
    ),
    ("POST", f"{PATH}/n4/promote", b"", Promote(N4), False),
    ("POST", f"{PATH}/n4/promote?force=true", b"", Promote(N4), True),
    ("DELETE", f"{PATH}/n4", b"", Remove(N4), False),
    ("DELETE", f"{PATH}/n%34?force=true", b"", Remove(N4), True),
    ("PUT", f"{PATH}/n4", b'{"address": "d.example:5"}', Move(N4, "d.example:5"), False),
]


@pytest.mark.parametrize("case", GOOD)
def test_a_change(node: RestNode, client: Connection, case: tuple[str, str, bytes, Change, bool]) -> None:
    method, path, body, change, force = case
    reply = client.request(method, path, body=body)
    assert (reply.status, reply.json) == (200, {"index": 8, "members": [{"id": "n1"}]})
    assert node.service.changes == [(change, force)]


def test_the_list(client: Connection) -> None:
    reply = client.request("GET", PATH)
    assert (reply.status, reply.json) == (200, {"members": [{"id": "n1"}]})
    assert client.request("GET", f"{PATH}?timeout=1s").status == 200
    assert client.request("HEAD", PATH).status == 200


def test_the_timeout(node: RestNode, client: Connection) -> None:
    assert client.request("DELETE", f"{PATH}/n4?timeout=1s").status == 200
    assert client.request("DELETE", f"{PATH}/n4").status == 200
    assert node.service.timeouts_ms == [950, 4750]


BODIES = [
    b"",
    b"{}",
    b"[]",
    b"n4",
    b'{"id": "n4"}',
    b'{"address": "d:4"}',
    b'{"id": "n 4", "address": "d:4"}',
    b'{"id": 4, "address": "d:4"}',
    b'{"id": "n4", "address": "d"}',
    b'{"id": "n4", "address": 4}',
    b'{"id": "n4", "address": "d:4", "promote": 1}',
    b'{"id": "n4", "address": "d:4", "force": "yes"}',
    b'{"id": "n4", "address": "d:4", "replaces": 1}',
    b'{"id": "n4", "address": "d:4", "promoted": true}',
]


@pytest.mark.parametrize("body", BODIES)
def test_another_body_is_refused(node: RestNode, client: Connection, body: bytes) -> None:
    reply = client.request("POST", PATH, body=body)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (400, "bad_request", "not_applied")
    assert node.service.changes == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", f"{PATH}/{quote('n/4', safe='')}", 400),
        ("DELETE", f"{PATH}/", 400),
        ("DELETE", f"{PATH}/{'n' * 65}", 400),
        ("DELETE", f"{PATH}/n4?forced=true", 400),
        ("DELETE", f"{PATH}/n4?force=perhaps", 400),
        ("PUT", f"{PATH}/n4?force=true", 400),
        ("POST", f"{PATH}/n4/demote", 404),
        ("POST", f"{PATH}/n4/promote/now", 404),
        ("GET", f"{PATH}/n4", 405),
        ("GET", f"{PATH}/n4/promote", 405),
        ("DELETE", PATH, 405),
    ],
)
def test_what_is_not_there(node: RestNode, client: Connection, method: str, path: str, status: int) -> None:
    reply = client.request(method, path, body=b'{"address": "d:4"}')
    assert reply.status == status
    assert node.service.changes == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ChangeRefused("n4 has not caught up with the leader yet"), 409, "change_refused"),
        (NoQuorum("no majority"), 503, "no_quorum"),
        (TimedOut("not decided in time", outcome=Outcome.UNKNOWN), 504, "timeout"),
    ],
    ids=str,
)
def test_what_the_service_raises(
    node: RestNode, client: Connection, error: RaftkvError, status: int, code: str
) -> None:
    node.service.change_error = error
    reply = client.request("DELETE", f"{PATH}/n4")
    assert (reply.status, reply.json["code"], reply.json["detail"]) == (status, code, error.detail)
    assert reply.json["outcome"] == error.outcome


CLUSTER: dict[str, Any] = {
    "node": "n1",
    "url": "http://n1:8001",
    "peer_address": "n1:9001",
    "cluster_id": "c",
    "leader": "n1",
    "leader_url": "http://n1:8001",
    "term": 3,
    "commit_index": 9,
    "last_applied": 9,
    "version": "1.2.3",
    "protocol": 2,
    "machine_level": 1,
}


@pytest.mark.parametrize(
    ("lists", "has_quorum", "names"),
    [
        ({"voters": ["n1"], "members": ["n1"]}, True, ["n1"]),
        ({"voters": ["n1"], "members": ["n1", "n4"]}, True, ["n1"]),
        ({"voters": ["n4"], "outgoing": ["n1"], "members": ["n1", "n4"]}, False, ["n1"]),
        ({"voters": ["n1"], "outgoing": ["n1", "n4", "n5"], "members": ["n1", "n4"]}, False, ["n1"]),
        ({"voters": [], "outgoing": [], "members": []}, False, []),
    ],
    ids=["one", "a learner that is down", "joint, half of it down", "joint, the old half", "waiting"],
)
def test_the_cluster_s_majorities(
    node: RestNode, client: Connection, lists: dict[str, Any], has_quorum: bool, names: list[str]
) -> None:
    """Both halves of a joint membership need one; learners don't count; who isn't added is no member."""
    node.service.status_report = {**CLUSTER, **lists}
    reply = client.request("GET", "/v1/cluster").json
    assert (reply["quorum"], reply["has_quorum"], reply["may_lose"]) == (1, has_quorum, 0)
    assert [member["node"] for member in reply["members"]] == names
    assert reply["joint"] is bool(lists.get("outgoing"))
    for member in reply["members"]:
        assert (member["version"], member["protocol"], member["machine_level"]) == ("1.2.3", 2, 1)
        assert member["votes"] is True
