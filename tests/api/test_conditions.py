"""Conditional requests: RFC 9110's headers, and the same as query parameters."""

from __future__ import annotations

import pytest

from tests.api.client import Connection, Headers
from tests.api.node import RestNode

ABSENT, PRESENT = "/v1/kv/absent", "/v1/kv/present"  # the latter is at revision 2, and the store at 3

# Headers and query of a write -> does it go through where the key is at revision 2, and where it is absent?
WRITES: list[tuple[Headers, str, bool, bool]] = [
    ([("If-Match", '"2"')], "", True, False),
    ([("If-Match", '"1"')], "", False, False),
    ([("If-Match", '"1", "2"')], "", True, False),
    ([("If-Match", '"1","2" , "9"')], "", True, False),
    ([("If-Match", '"1"'), ("If-Match", '"2"')], "", True, False),
    ([("If-Match", ', "2",')], "", True, False),
    ([("If-Match", '"a,b", "2"')], "", True, False),
    ([("if-match", '"2"')], "", True, False),
    ([("If-Match", "*")], "", True, False),
    ([("If-Match", " * ")], "", True, False),
    ([("If-Match", 'W/"2"')], "", False, False),  # compares strongly
    ([("If-Match", '"x"')], "", False, False),  # no revision of ours
    ([("If-Match", '"02"')], "", False, False),
    ([("If-Match", '""')], "", False, False),
    ([("If-Match", '"0"')], "", False, False),  # no entity tag means "absent"
    ([("If-Match", '"99999999999999999999"')], "", False, False),
    ([("If-None-Match", "*")], "", False, True),
    ([("If-None-Match", '"2"')], "", False, True),
    ([("If-None-Match", 'W/"2"')], "", False, True),  # compares weakly
    ([("If-None-Match", '"1", "3"')], "", True, True),
    ([("If-None-Match", '"1"'), ("If-None-Match", '"2"')], "", False, True),
    ([("If-None-Match", '"x"')], "", True, True),
    ([], "?if_revision=2", True, False),
    ([], "?if_revision=1", False, False),
    ([], "?if_revision=0", False, True),
    ([], "?if_absent=true", False, True),
    ([], "?if_absent=1", False, True),
    ([], "?if_absent", False, True),
    ([], "?if_absent=false", True, True),
]


@pytest.fixture(autouse=True)
def _keys(client: Connection) -> None:
    for key in ("other", "present", "other"):
        client.request("PUT", f"/v1/kv/{key}", body=b"old")


@pytest.mark.parametrize(("headers", "query", "if_present", "if_absent"), WRITES)
def test_put(client: Connection, headers: Headers, query: str, if_present: bool, if_absent: bool) -> None:
    present = client.request("PUT", PRESENT + query, headers, b"new")
    assert present.status == (200 if if_present else 412)
    assert client.request("GET", PRESENT).body == (b"new" if if_present else b"old")
    absent = client.request("PUT", ABSENT + query, headers, b"new")
    assert absent.status == (201 if if_absent else 412)
    assert client.request("GET", ABSENT).status == (200 if if_absent else 404)


@pytest.mark.parametrize(("headers", "query", "if_present", "if_absent"), WRITES)
def test_delete(client: Connection, headers: Headers, query: str, if_present: bool, if_absent: bool) -> None:
    present = client.request("DELETE", PRESENT + query, headers)
    assert present.status == (200 if if_present else 412)
    assert client.request("GET", PRESENT).status == (404 if if_present else 200)
    absent = client.request("DELETE", ABSENT + query, headers)
    assert absent.status == (200 if if_absent else 412)
    if if_absent:
        assert absent.json["deleted"] == 0


@pytest.mark.parametrize(
    ("headers", "query", "wanted"),
    [
        ([("If-Match", '"1", "7"')], "", "revision 1 or 7"),
        ([("If-Match", '"x"')], "", "an entity tag that no revision has"),
        ([("If-None-Match", '"2"')], "", "any revision but 2"),
        ([("If-None-Match", "*")], "", "it absent"),
        ([], "?if_revision=0", "revision none (absent)"),
    ],
)
def test_what_failed_is_said_with_the_current_revision(
    client: Connection, headers: Headers, query: str, wanted: str
) -> None:
    reply = client.request("PUT", PRESENT + query, headers, b"new")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json == {
        "type": "urn:raftkv:error:condition_failed",
        "title": "Condition failed",
        "status": 412,
        "detail": f"the key is at revision 2, but the request wanted {wanted}",
        "code": "condition_failed",
        "outcome": "not_applied",
        "mod_revision": 2,
        "revision": 3,
    }


def test_an_absent_key_has_no_revision(client: Connection) -> None:
    reply = client.request("PUT", ABSENT, [("If-Match", "*")], b"new")
    assert reply.json["detail"] == "the key doesn't exist, but the request wanted it to exist"
    assert reply.json["mod_revision"] == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("If-None-Match", '"2"')], 304),
        ([("If-None-Match", 'W/"2"')], 304),
        ([("If-None-Match", '"1", "2"')], 304),
        ([("If-None-Match", "*")], 304),
        ([("If-None-Match", '"1"')], 200),
        ([("If-Match", '"2"')], 200),
        ([("If-Match", "*")], 200),
        ([("If-Match", '"1"')], 412),
        ([("If-Match", 'W/"2"')], 412),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads(client: Connection, method: str, headers: Headers, status: int) -> None:
    reply = client.request(method, PRESENT, headers)
    assert reply.status == status
    if status == 304:
        assert reply.body == b""
        assert reply.headers["etag"] == '"2"'
        assert reply.headers["raftkv-revision"] == "3"
        assert "content-type" not in reply.headers
    assert client.request(method, ABSENT, headers).status == 404
    assert client.request("GET", PRESENT).body == b"old", "the connection is still in step"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("If-Match", "2")], ""),
        ([("If-Match", '"2')], ""),
        ([("If-Match", '"1" "2"')], ""),
        ([("If-Match", "")], ""),
        ([("If-Match", ",")], ""),
        ([("If-Match", '*, "2"')], ""),
        ([("If-None-Match", "w/2")], ""),
        ([], "?if_revision=-1"),
        ([], "?if_revision="),
        ([], "?if_revision=1.0"),
        ([], "?if_revision=%D9%A2"),  # a digit, but not ASCII's
        ([], "?if_revision=1000000000000000000000"),
        ([], "?if_absent=yes"),
        ([("If-Match", '"2"'), ("If-None-Match", '"1"')], ""),
        ([("If-Match", '"2"')], "?if_revision=2"),
        ([], "?if_revision=2&if_absent=true"),
    ],
)
def test_a_condition_that_says_nothing_clear_is_refused(
    node: RestNode, client: Connection, headers: Headers, query: str
) -> None:
    for method in ("PUT", "DELETE"):
        reply = client.request(method, PRESENT + query, headers, b"new")
        assert (reply.status, reply.json["code"]) == (400, "bad_request")
    assert node.store.revision == 3
