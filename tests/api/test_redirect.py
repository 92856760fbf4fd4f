"""``?redirect=true``: where the leader is."""

from __future__ import annotations

import pytest

from tests.api.client import Connection
from tests.api.node import N1, RestNode


@pytest.mark.parametrize(
    ("asked", "rest"),
    [
        ("/v1/kv/a%2Fb?redirect=true", "/v1/kv/a%2Fb"),
        ("/v1/kv/a?consistency=lease&redirect=1&timeout=1s", "/v1/kv/a?consistency=lease&timeout=1s"),
        ("/v1/kv?prefix=%FF+x&redirect", "/v1/kv?prefix=%FF+x"),
        ("/v1/locks/l?redirect=true", "/v1/locks/l"),
    ],
)
def test_a_follower_says_where_the_leader_is(client: Connection, asked: str, rest: str) -> None:
    reply = client.request("GET", asked)
    assert (reply.status, reply.headers["location"]) == (307, f"http://n2:8001{rest}")
    assert (reply.headers["raftkv-node"], reply.headers["raftkv-leader"]) == ("n1", "n2")


def test_nothing_is_done_and_the_connection_goes_on(node: RestNode, client: Connection) -> None:
    assert client.request("PUT", "/v1/kv/a?redirect=true", body=b"v").status == 307
    assert client.request("GET", "/v1/kv/a").status == 404
    assert node.service.commands == []


def test_who_leads_or_was_not_asked_to_redirect_serves(node: RestNode, client: Connection) -> None:
    assert client.request("PUT", "/v1/kv/a?redirect=false&if_absent=true", body=b"v").status == 201
    node.service.leader = N1
    assert client.request("PUT", "/v1/kv/a?redirect=true", body=b"w").status == 200
    assert client.request("GET", "/v1/kv/a?redirect=true&format=json").json["value"] == "w"


def test_without_a_leader_there_is_nowhere_to_go(node: RestNode, client: Connection) -> None:
    node.service.leader = None
    reply = client.request("PUT", "/v1/kv/a?redirect=true", body=b"v")
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (503, "no_quorum", "not_applied")
    assert reply.headers["retry-after"] == "1"


def test_a_value_that_is_no_flag_a_second_one_and_other_paths_are_refused(client: Connection) -> None:
    for asked in ("/v1/kv/a?redirect=yes", "/v1/kv/a?redirect=1&redirect=1", "/readyz?redirect=true"):
        assert client.request("GET", asked).status == 400
