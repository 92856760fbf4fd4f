"""One request at a time to one node, and what a history says of it.

Rules: nothing is ever repeated. What was surely not sent is a failure; what may have been sent and had no
answer is unknown. Times are ``time.monotonic``, which all processes of a machine share. An answer that the
interface doesn't have for such a request (a 400, a 500) is a mistake of the nodes: ``Unexpected``.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from raftkv.verify.history import (
    Action,
    Condition,
    ConditionKind,
    Delete,
    Deleted,
    Get,
    Item,
    List,
    Listed,
    Operation,
    Outcome,
    Put,
    Read,
    Refused,
    Result,
    Written,
)

# Beyond the server's own deadline: the server is to answer, not the client to give up.
PATIENCE_S = 1.0


class NotSent(Exception):
    """No byte of the request left: nobody listens there."""


class Lost(Exception):
    """The request, or a part of it, left; no whole answer came."""


class Unexpected(Exception):
    """The node answered what it never should."""


@dataclass(slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


@dataclass(slots=True)
class Connection:
    """To one node; kept as long as it works."""

    host: str
    port: int
    opened: int = field(default=0, init=False)  # how often; a node that was started again is another one
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, init=False)

    async def ask(
        self, method: str, target: str, timeout_s: float, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """Raises NotSent or Lost."""
        was_sent = False
        try:
            async with asyncio.timeout(timeout_s):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self.host, self.port)
                    self.opened += 1
                reader, writer = self._streams
                lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host}:{self.port}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                lines += [f"Content-Length: {len(body)}", "", ""]
                was_sent = True
                writer.write("\r\n".join(lines).encode() + body)
                answer = await _answer(reader)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            raise (Lost if was_sent else NotSent)(repr(error)) from error
        except asyncio.CancelledError:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].transport.abort()
            self._streams = None


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Answer(
        int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))
    )


async def perform(
    connection: Connection,
    client: str,
    action: Action,
    timeout_ms: int,
    consistency: Mapping[str, str] | None = None,
) -> Operation:
    """Ask, and say what a history says of it. ``consistency``: what the query of a read says of that, beyond
    what the action does. Raises Unexpected.
    """
    method, path, query, headers, body = _request(action)
    target = f"{path}?{urlencode({**query, **(consistency or {}), 'timeout': f'{timeout_ms}ms'})}"
    call = time.monotonic()
    try:
        answer = await connection.ask(method, target, timeout_ms / 1000 + PATIENCE_S, headers, body)
    except NotSent:
        return Operation(client, action, call, time.monotonic(), Outcome.FAIL)
    except Lost:
        return Operation(client, action, call, math.inf, Outcome.UNKNOWN)
    end = time.monotonic()
    if answer.status in (429, 503, 504):
        outcome = Outcome.FAIL if answer.json["outcome"] == "not_applied" else Outcome.UNKNOWN
        return Operation(client, action, call, end if outcome is Outcome.FAIL else math.inf, outcome)
    return Operation(client, action, call, end, Outcome.OK, _result(action, answer))


def _request(action: Action) -> tuple[str, str, dict[str, str], dict[str, str], bytes]:
    """Method, path, query, headers, body."""
    stale = {"consistency": "stale"} if isinstance(action, Get | List) and action.stale else {}
    match action:
        case Put(key, value, condition):
            return "PUT", _path(key), {}, _conditions(condition), value
        case Delete(key, condition):
            return "DELETE", _path(key), {}, _conditions(condition), b""
        case Get(key):
            return "GET", _path(key), stale, {}, b""
        case List(start, end, limit, reverse):
            query = {"start": start.decode(), "limit": str(limit)} | ({"reverse": "true"} if reverse else {})
            return "GET", "/v1/kv", query | ({} if end is None else {"end": end.decode()}) | stale, {}, b""
    raise ValueError(f"the interface has no {action}")


def _path(key: bytes) -> str:
    return f"/v1/kv/{quote(key, safe='')}"


def _conditions(condition: Condition | None) -> dict[str, str]:
    if condition is None:
        return {}
    tags = ", ".join(f'"{revision}"' for revision in condition.revisions)
    match condition.kind:
        case ConditionKind.EXISTS:
            return {"If-Match": "*"}
        case ConditionKind.ABSENT:
            return {"If-None-Match": "*"}
        case ConditionKind.REVISION_IN:
            return {"If-Match": tags}
        case ConditionKind.REVISION_NOT_IN:
            return {"If-None-Match": tags}


def _result(action: Action, answer: Answer) -> Result:
    status, headers = answer.status, answer.headers
    match action:
        case Put() if status in (200, 201):
            body = answer.json
            if body["created"] != (status == 201) or body["created"] != (body["version"] == 1):
                raise Unexpected(f"{action}: {status} {answer.body!r}")
            return Written(body["revision"], body["version"])
        case Delete() if status == 200:
            return Deleted(answer.json["deleted"], answer.json["revision"])
        case Put() | Delete() if status == 412:
            return Refused(answer.json["mod_revision"], answer.json["revision"])
        case Get() if status == 200:
            created, modified, version = (
                int(headers[f"raftkv-{name}"]) for name in ("create-revision", "mod-revision", "version")
            )
            item = Item(answer.body, created, modified, version)
            return Read(item, int(headers["raftkv-revision"]))
        case Get() if status == 404:
            return Read(None, answer.json["revision"])
        case List() if status == 200:
            body = answer.json
            return Listed(
                tuple(_listed(item) for item in body["items"]), body["cursor"] is not None, body["revision"]
            )
    raise Unexpected(f"{action}: {status} {answer.body[:300]!r}")


def _listed(item: dict[str, Any]) -> tuple[bytes, Item]:
    return item["key"].encode(), Item(
        item["value"].encode(), item["create_revision"], item["mod_revision"], item["version"]
    )
