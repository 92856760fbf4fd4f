"""``POST /v1/snapshot``: have this node take a snapshot now."""

from __future__ import annotations

import pytest

from raftkv.errors import Outcome, RaftkvError, SnapshotFailed, TimedOut
from tests.api.client import Connection
from tests.api.node import RestNode

PATH = "/v1/snapshot"


def test_what_it_covers(node: RestNode, client: Connection) -> None:
    reply = client.request("POST", PATH)
    assert (reply.status, reply.json) == (200, {"index": 7, "term": 2, "time_ms": 5, "bytes": 900})


def test_it_may_take_as_long_as_any_request_may(node: RestNode, client: Connection) -> None:
    assert client.request("POST", PATH).status == 200
    assert client.request("POST", f"{PATH}?timeout=1s").status == 200
    assert node.service.timeouts_ms == [57_000, 950]
    assert client.request("POST", f"{PATH}?timeout=61s").status == 400
    assert client.request("POST", f"{PATH}?depth=1").status == 400


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SnapshotFailed("full"), (503, "snapshot_failed", "not_applied")),
        (TimedOut("slow", outcome=Outcome.UNKNOWN), (504, "timeout", "unknown")),
    ],
)
def test_failures(node: RestNode, client: Connection, error: RaftkvError, told: tuple[int, str, str]) -> None:
    node.service.snapshot_error = error
    reply = client.request("POST", PATH)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == told


def test_another_method(node: RestNode, client: Connection) -> None:
    assert client.request("DELETE", PATH).status == 405
