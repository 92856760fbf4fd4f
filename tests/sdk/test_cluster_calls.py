"""Members, readiness, snapshots and services: what is asked, and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raftkv import AsyncClient, ChangeRefused, NoQuorum
from raftkv.sdk.cluster import Member, Members, SnapshotTaken
from tests.sdk.stub import Answer, Stub, problem

N1 = Member("n1", "h:9001", "leader", 5, 0, True)
N4 = Member("n4", "h:9004", "learner", None, None, False, promote=True, replaces="n2")
ROWS = [
    {"id": "n1", "address": "h:9001", "role": "leader", "match_index": 5, "lag": 0, "healthy": True},
    {
        "id": "n4",
        "address": "h:9004",
        "role": "learner",
        "match_index": None,
        "lag": None,
        "healthy": False,
        "promote": True,
        "replaces": "n2",
        "later": "releases say more",
    },
]
LIST = Answer({"members": ROWS, "leader": "n1", "joint": False, "committed": True, "index": 3})
ALL = Members((N1, N4), "n1", joint=False, committed=True)
NEW = {"id": "n4", "address": "h:9004"}

Change = Callable[[AsyncClient], Awaitable[Members]]


@pytest.mark.parametrize(
    ("call", "asked", "body"),
    [
        (lambda client: client.members(), "GET ", None),
        (
            lambda client: client.add_member("n4", "h:9004"),
            "POST ",
            {**NEW, "promote": True, "force": False},
        ),
        (
            lambda client: client.add_member("n4", "h:9004", promote=False, force=True),
            "POST ",
            {**NEW, "promote": False, "force": True},
        ),
        (
            lambda client: client.replace_member("n2", "n4", "h:9004"),
            "POST ",
            {**NEW, "promote": True, "replaces": "n2", "force": False},
        ),
        (lambda client: client.promote_member("n4"), "POST /n4/promote", None),
        (lambda client: client.remove_member("n4", force=True), "DELETE /n4?force=true", None),
        (lambda client: client.move_member("n4", "h:9004"), "PUT /n4", {"address": "h:9004"}),
    ],
)
async def test_members(call: Change, asked: str, body: Any) -> None:
    async with Stub([LIST]) as node, AsyncClient(node.url) as client:
        members = await call(client)
        assert members == ALL
        assert members["n4"].replaces == "n2"
        request = node.requests[0]
        query = "?force=true" if "force" in request.query else ""
        path = request.path.removeprefix("/v1/cluster/members")
        assert f"{request.method} {path}{query}" == asked
        assert (json.loads(request.body) if request.body else None) == body


async def test_a_refused_change_is_raised() -> None:
    async with Stub([problem(409, "change_refused")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(ChangeRefused):
            await client.remove_member("n4")


async def test_a_node_that_can_serve_is_found() -> None:
    waits, serves = (
        Answer({"status": "no quorum", "node": "n1"}, 503),
        Answer({"status": "ready", "node": "n2"}),
    )
    async with Stub([waits]) as one, Stub([serves]) as two:
        async with AsyncClient([one.url, two.url]) as client:
            assert await client.ready() == "n2"
        async with AsyncClient(one.url) as client:
            with pytest.raises(NoQuorum):
                await client.ready(timeout=1.0)


async def test_a_snapshot_is_taken() -> None:
    taken = Answer({"index": 7, "term": 2, "time_ms": 5, "bytes": 900})
    async with Stub([taken]) as node, AsyncClient(node.url) as client:
        assert await client.take_snapshot() == SnapshotTaken(7, 2, 900)
        assert (node.requests[0].method, node.requests[0].path) == ("POST", "/v1/snapshot")


async def test_services_are_named_as_keys_are() -> None:
    listed = Answer({"services": [{"name": "web"}, {"name_base64": "/w=="}], "revision": 3})
    async with Stub([listed]) as node, AsyncClient(node.url) as client:
        assert await client.services() == ("web", "\udcff")
