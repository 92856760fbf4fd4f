"""Errors as clients see them: problem+json with its outcome, whoever raised them."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from raftkv.errors import (
    BadRequest,
    ChangeRefused,
    ConditionFailed,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LockHeld,
    MethodNotAllowed,
    NoQuorum,
    NoSuccessor,
    NoSuchLease,
    NotANumber,
    NotFound,
    NotHolder,
    NotReached,
    NumberTooLarge,
    Outcome,
    QuotaExceeded,
    RaftkvError,
    RevisionCompacted,
    ShuttingDown,
    SnapshotFailed,
    TimedOut,
    TokenReused,
    TooLarge,
    TooManyLeases,
    TooManyRequests,
    TooStale,
    UpgradeUnfinished,
    UriTooLong,
)
from tests.api.client import Connection, Reply
from tests.api.node import RestNode

STATUS = {
    RaftkvError: (500, "internal"),
    BadRequest: (400, "bad_request"),
    KeyNotFound: (404, "key_not_found"),
    NotFound: (404, "not_found"),
    NotReached: (503, "revision_not_reached"),
    TooStale: (503, "too_stale"),
    MethodNotAllowed: (405, "method_not_allowed"),
    ConditionFailed: (412, "condition_failed"),
    TooLarge: (413, "too_large"),
    UriTooLong: (414, "uri_too_long"),
    TooManyRequests: (429, "too_many_requests"),
    NoQuorum: (503, "no_quorum"),
    NoSuccessor: (503, "no_successor"),
    ChangeRefused: (409, "change_refused"),
    NoSuchLease: (404, "no_such_lease"),
    LeaseExists: (409, "lease_exists"),
    LockHeld: (409, "lock_held"),
    NotHolder: (409, "not_holder"),
    UpgradeUnfinished: (503, "upgrade_unfinished"),
    SnapshotFailed: (503, "snapshot_failed"),
    ShuttingDown: (503, "shutting_down"),
    TimedOut: (504, "timeout"),
    FutureRevision: (400, "future_revision"),
    NotANumber: (409, "not_a_number"),
    NumberTooLarge: (409, "number_too_large"),
    RevisionCompacted: (410, "compacted"),
    TokenReused: (422, "token_reused"),
    TooManyLeases: (429, "too_many_leases"),
    QuotaExceeded: (507, "quota_exceeded"),
}


def ask_all(client: Connection, *, writes: bool) -> list[Reply]:
    if writes:
        return [client.request("PUT", "/v1/kv/a", body=b"v"), client.request("DELETE", "/v1/kv/a")]
    return [client.request("GET", "/v1/kv/a"), client.request("GET", "/v1/kv")]


def test_the_table_is_complete() -> None:
    ours = {each for each in RaftkvError.__subclasses__() if each.__module__ == RaftkvError.__module__}
    assert set(STATUS) == {RaftkvError, *ours}  # clients have more, which no server answers


@pytest.mark.parametrize("kind", STATUS, ids=lambda kind: kind.code)
@pytest.mark.parametrize("outcome", Outcome)
def test_what_the_service_raises(
    node: RestNode, client: Connection, kind: type[RaftkvError], outcome: Outcome
) -> None:
    error = kind("what happened", outcome=outcome, leader="n3", retry_after_ms=1500, extra={"more": [1]})
    node.service.propose_error = node.service.barrier_error = error
    status, code = STATUS[kind]
    for reply in ask_all(client, writes=True) + ask_all(client, writes=False):
        assert reply.status == status
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["retry-after"] == "2", "in seconds, rounded up"
        assert reply.json == {
            "type": f"urn:raftkv:error:{code}",
            "title": kind.title,
            "status": status,
            "detail": "what happened",
            "code": code,
            "outcome": outcome.value,
            "leader": "n3",
            "retry_after_ms": 1500,
            "more": [1],
        }


def test_what_is_not_known_is_left_out(node: RestNode, client: Connection) -> None:
    node.service.propose_error = TimedOut("no answer", outcome=Outcome.UNKNOWN)
    reply = client.request("PUT", "/v1/kv/a", body=b"v")
    assert set(reply.json) == {"type", "title", "status", "detail", "code", "outcome"}
    assert "retry-after" not in reply.headers
    assert "allow" not in reply.headers


@pytest.mark.parametrize("error", [RuntimeError("secret"), KeyError("k"), TimeoutError(), OSError(5, "io")])
def test_an_unexpected_exception_is_logged_and_its_outcome_unknown(
    node: RestNode,
    client: Connection,
    log_lines: list[MutableMapping[str, Any]],
    error: Exception,
) -> None:
    node.service.propose_error = node.service.barrier_error = error
    for reply in ask_all(client, writes=True) + ask_all(client, writes=False):
        assert (reply.status, reply.json["code"]) == (500, "internal")
        assert reply.json["outcome"] == "unknown"
        assert "secret" not in reply.body.decode()
    assert [line["event"] for line in log_lines if line["log_level"] == "error"] == ["a request failed"] * 4
    node.service.propose_error = None
    assert client.request("PUT", "/v1/kv/a", body=b"v").status == 201, "the connection goes on"


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/v1/kv/a", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/v1/kv/a", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/v1/kv/a/b", "DELETE, GET, HEAD, PUT"),
        ("PUT", "/v1/kv", "DELETE, GET, HEAD"),
        ("POST", "/v1/kv", "DELETE, GET, HEAD"),
        ("POST", "/v1/status", "GET, HEAD"),
        ("PUT", "/v1/cluster", "GET, HEAD"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("TRACE", "/readyz", "GET, HEAD"),
    ],
)
def test_a_wrong_method(client: Connection, method: str, target: str, allow: str) -> None:
    reply = client.request(method, target)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (
        405,
        "method_not_allowed",
        "not_applied",
    )
    assert reply.headers["allow"] == reply.json["allow"] == allow


@pytest.mark.parametrize(
    "target",
    ["/", "/v1", "/v1/", "/v1/KV/a", "/v1/kva", "/v2/kv/a", "//v1/kv/a", "/v1/kv%2Fa", "/v1/../v1/kv/a"],
)
def test_an_unknown_path(client: Connection, target: str) -> None:
    for method in ("GET", "PUT", "OPTIONS"):
        reply = client.request(method, target)
        assert (reply.status, reply.json["code"]) == (404, "not_found")
        assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/kv/a?consistensy=stale"),
        ("GET", "/v1/kv/a?consistency=leased"),
        ("GET", "/v1/kv/a?max_staleness=1s"),
        ("GET", "/v1/kv/a?consistency=linearizable&max_staleness=1s"),
        ("GET", "/v1/kv?consistency=lease&max_staleness=1s"),
        ("GET", "/v1/kv/a?consistency=stale&max_staleness=1"),
        ("GET", "/v1/kv/a?consistency=stale&max_staleness=0s"),
        ("GET", "/v1/kv/a?min_revision=-1"),
        ("GET", "/v1/kv/a?min_revision=new"),
        ("GET", "/v1/kv/a?min_revision=1000000000000000000"),
        ("PUT", "/v1/kv/a?min_revision=1"),
        ("GET", "/v1/kv/a?consistency=stale&consistency=linearizable"),
        ("GET", "/v1/kv/a?if_revision=1"),
        ("GET", "/v1/kv/a?format=xml"),
        ("GET", "/v1/kv/a?timeout=soon"),
        ("GET", "/v1/kv/a?=1"),
        ("PUT", "/v1/kv/a?consistency=linearizable"),
        ("PUT", "/v1/kv/a?tll=30s"),
        ("PUT", "/v1/kv/a?timeout=61s"),
        ("DELETE", "/v1/kv/a?if_absent=true&if_absent=true"),
        ("GET", "/v1/status?x=1"),
        ("GET", "/v1/cluster?x"),
        ("GET", "/readyz?verbos"),
        ("GET", "/readyz?verbose=2"),
    ],
)
def test_a_wrong_query(node: RestNode, client: Connection, method: str, target: str) -> None:
    reply = client.request(method, target, body=b"v" if method == "PUT" else None)
    assert (reply.status, reply.json["code"], reply.json["outcome"]) == (400, "bad_request", "not_applied")
    assert node.service.timeouts_ms == [], "refused before anything is asked of the cluster"
    assert client.request("GET", "/livez").status == 200


@pytest.mark.parametrize("query", ["", "?", "?&", "?&&timeout=1s&"])
def test_an_empty_query_is_none(client: Connection, query: str) -> None:
    assert client.request("PUT", f"/v1/kv/a{query}", body=b"v").status == 201


def test_a_request_is_a_line_of_the_log_at_debug_only(
    client: Connection, log_lines: list[MutableMapping[str, Any]]
) -> None:
    client.request("GET", "/v1/kv/a%2Fb")
    (line,) = log_lines
    assert (line["event"], line["log_level"]) == ("request", "debug")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/kv/a%2Fb", 404)
