"""``/v1/elections/{name}/observe`` and ``/v1/services/{name}?watch=true``: states as they come, as lines."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from raftkv.errors import NoQuorum
from tests.api.client import Connection
from tests.api.node import DEADLINE_S, RestNode


@contextmanager
def lines(node: RestNode, path: str) -> Iterator[Iterator[dict[str, Any]]]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/x-ndjson"})
        response = connection.getresponse()
        assert response.status == 200
        yield (json.loads(line) for line in response)
    finally:
        connection.close()


def test_who_leads(node: RestNode, client: Connection) -> None:
    def campaign(value: str) -> None:
        body = b'{"ttl": "10s", "value": "%s"}' % value.encode()
        assert client.request("POST", "/v1/elections/e", body=body).status == 200

    with lines(node, "/v1/elections/e/observe") as seen:
        assert next(seen) == {"event": "leader", "name": "e", "leader": None}
        campaign("one")
        assert next(seen)["leader"] == {"lease": 1, "fencing_token": 1, "value": "one"}
        client.request("POST", "/v1/elections/other", body=b'{"ttl": "10s"}')
        client.request("PUT", "/v1/elections/e?lease=1", body=b'{"value": "uno"}')
        assert next(seen)["leader"] == {"lease": 1, "fencing_token": 1, "value": "uno"}
        client.request("DELETE", "/v1/elections/e?lease=1")
        assert next(seen)["leader"] is None
        campaign("two")
        assert next(seen)["leader"]["value"] == "two"
    with lines(node, "/v1/elections/e/observe") as seen:
        assert next(seen)["leader"]["value"] == "two"


def test_which_instances_live(node: RestNode, client: Connection) -> None:
    def instances(event: dict[str, Any]) -> list[str]:
        assert (event["event"], event["name"]) == ("instances", "web")
        return [each["id"] for each in event["instances"]]

    with lines(node, "/v1/services/web?watch=true") as seen:
        assert instances(next(seen)) == []
        for name in ("a", "b"):
            body = b'{"id": "%s", "address": "x:1", "ttl": "10s"}' % name.encode()
            assert client.request("POST", "/v1/services/web", body=body).status == 201
        while (now := instances(next(seen))) != ["a", "b"]:
            assert now == ["a"]
        client.request("DELETE", "/v1/leases/1")
        assert instances(next(seen)) == ["b"]


@pytest.mark.parametrize("path", ["/v1/elections/e/observe", "/v1/services/web?watch=true"])
def test_it_begins_as_fresh_as_any_read(node: RestNode, client: Connection, path: str) -> None:
    node.service.barrier_error = NoQuorum("no leader")
    assert client.request("GET", path).status == 503
    stale = f"{path}{'&' if '?' in path else '?'}consistency=stale"
    with lines(node, stale) as seen:
        assert next(seen)["event"] in ("leader", "instances")


def test_what_can_not_be_observed(client: Connection) -> None:
    assert client.request("GET", "/v1/locks/x/observe").status == 400
    assert client.request("GET", "/v1/elections//observe").status == 400
    assert client.request("GET", "/v1/elections/e/observe?watch=true").status == 400
    assert client.request("POST", "/v1/elections/e/observe").headers["allow"] == "GET, HEAD"
    assert client.request("GET", "/v1/services/web?watch=maybe").status == 400
