"""The OpenAPI document is of all routes and of no others, and says what they take."""

from __future__ import annotations

import re
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import schemathesis

from raftkv.api.openapi import document
from tests.api.client import Connection
from tests.api.described import DOCUMENT, SCHEMA, TABLE
from tests.api.test_errors import STATUS

PATHS: dict[str, dict[str, Any]] = DOCUMENT["paths"]
OPERATIONS = [(method.upper(), path) for path, methods in PATHS.items() for method in methods]
UNROUTED = {"not_found", "method_not_allowed"}  # what is answered where there is no operation
TAKES = re.compile(r"unknown query parameter 'nonsense'; this request takes (.*)")


def filled(path: str) -> str:
    """A path that the template stands for."""
    return path.format(key="k", name="n", id="1")


def test_each_route_is_described_and_nothing_else() -> None:
    assert {path: {method.upper() for method in methods} for path, methods in PATHS.items()} == TABLE
    undescribed = TABLE | {"/v1/new": frozenset({"GET"})}
    with pytest.raises(ValueError, match="'GET', '/v1/new'"):
        document(undescribed)
    unrouted = {path: methods for path, methods in TABLE.items() if path != "/v1/txn"}
    with pytest.raises(ValueError, match="'POST', '/v1/txn'"):
        document(unrouted)


@pytest.mark.parametrize("path", PATHS)
def test_no_other_method_is_answered(client: Connection, path: str) -> None:
    reply = client.request("PATCH", filled(path))
    assert reply.status == 405
    assert set(reply.headers["allow"].split(", ")) == {method.upper() for method in PATHS[path]}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_query_parameters_are_those_that_are_taken(client: Connection, method: str, path: str) -> None:
    if path == "/livez":
        assert (
            client.request(method, "/livez?nonsense=1").status == 200
        )  # a probe's habits must not kill a node
        return
    reply = client.request(method, f"{filled(path)}?nonsense=1")
    assert reply.status == 400
    if method == "HEAD":  # as its GET, which says more
        return
    match = TAKES.fullmatch(reply.json["detail"])
    assert match is not None, reply.json
    taken = set() if match[1] == "none" else set(match[1].split(", "))
    described = {each["name"] for each in parameters(method, path) if each["in"] == "query"}
    assert taken == described - {"redirect"}
    assert ("redirect" in described) == path.startswith("/v1/")  # which is taken before a handler is found


def test_what_varies_in_a_path_is_described() -> None:
    for method, path in OPERATIONS:
        names = [each["name"] for each in parameters(method, path) if each["in"] == "path"]
        assert names == re.findall(r"{(\w+)}", path)


def test_it_is_an_openapi_document() -> None:
    SCHEMA.validate()
    broken = deepcopy(DOCUMENT)
    broken["paths"]["/livez"]["get"]["responses"]["200"].pop("description")
    with pytest.raises(ValueError, match='"description" is a required property'):
        schemathesis.openapi.from_dict(broken).validate()


def test_every_code_is_answered_somewhere() -> None:
    known = {code: status for status, code in STATUS.values()}
    assert set(DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == set(known)
    answered: dict[str, int] = {}
    for response in DOCUMENT["components"]["responses"].values():
        only = response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]
        answered |= dict.fromkeys(only["code"]["enum"], only["status"]["const"])
    assert answered == {code: status for code, status in known.items() if code not in UNROUTED}


def test_it_is_served(client: Connection) -> None:
    reply = client.request("GET", "/openapi.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == DOCUMENT
    assert client.request("GET", "/openapi.json").json == DOCUMENT  # it is made once
    head = client.request("HEAD", "/openapi.json")
    assert (head.status, head.headers["content-length"]) == (200, reply.headers["content-length"])


def test_a_node_that_starts_does_not_import_it() -> None:
    code = "import sys, raftkv.api; assert not [name for name in sys.modules if 'openapi' in name]"
    subprocess.run([sys.executable, "-c", code], check=True)


def parameters(method: str, path: str) -> list[dict[str, Any]]:
    known = DOCUMENT["components"]["parameters"]
    listed = PATHS[path][method.lower()].get("parameters", [])
    return [known[each["$ref"].rsplit("/", 1)[1]] for each in listed]
