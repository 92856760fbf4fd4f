"""Server-sent events of the cluster, as one stream: where it breaks, it goes on at the next node, behind the
last event that came with an ``id``.

Rules: the id of a revision's last event is ``N``, of those before it ``N.k``. Events of one revision are
given together, when the last is here, and a stream goes on behind the last that was given: so nothing is
given twice, and never half of a revision. An answer that would be the same anywhere is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from raftkv.errors import RaftkvError
from raftkv.sdk.calling import Ask, Caller, Query
from raftkv.sdk.errors import BadAnswer, Unreachable, error_from

_HEAD_S = 5.0  # for a node to begin its answer
_STALL_S = 30.0  # nothing for so long, no sign of life either: another node is asked
_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.5)
_PASSING = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Sent:
    """One server-sent event; ``data`` is JSON."""

    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Together:
    """What was sent up to an id; "" where this stream has none."""

    id: str
    events: tuple[Sent, ...]


async def follow(
    caller: Caller, path: str, query: Query = (), *, start: Query = (), has_ids: bool = True
) -> AsyncGenerator[Together]:
    """Without an end. ``start``: of the query, until there is an id to go on from. ``has_ids`` False: each
    event stands for itself, and where the stream breaks it begins anew.

    Raises ``RaftkvError`` for an answer that would be the same anywhere, and for an event ``compacted``.
    """
    last_id: str | None = None
    failures = 0
    while True:
        endpoint = caller.endpoints.current
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        ask = Ask("GET", path, query if last_id is not None else (*query, *start), headers)
        try:
            async with (
                caller.stream(endpoint, ask, head_s=_HEAD_S, stall_s=_STALL_S) as answer,
                aclosing(_parsed(answer, has_ids=has_ids)) as groups,
            ):
                async for together in groups:
                    _raise_if_compacted(together)
                    failures, last_id = 0, together.id or last_id
                    yield together
        except RaftkvError as error:
            passes = error.status in _PASSING or isinstance(error, Unreachable)
            if not passes or isinstance(error, BadAnswer):
                raise
        caller.endpoints.failed(endpoint)
        caller.look_around()
        pause_s = _PAUSES_S[min(failures // len(caller.endpoints), len(_PAUSES_S) - 1)]
        failures += 1
        await asyncio.sleep(pause_s)


def _raise_if_compacted(together: Together) -> None:
    for event in together.events:
        if event.name == "compacted":
            oldest = event.data.get("oldest", event.data.get("revision"))
            document = {
                "code": "compacted",
                "detail": f"the changes were compacted: revision {oldest} is the oldest that can be read",
                "outcome": "not_applied",
                **event.data,
                "oldest": oldest,
            }
            raise error_from(document, 410, "a node")


async def _parsed(answer: aiohttp.ClientResponse, *, has_ids: bool) -> AsyncGenerator[Together]:
    """By the rules of the HTML standard, as far as nodes use them."""
    name, data, last_id = "message", list[bytes](), ""
    gathered: list[Sent] = []
    is_last = not has_ids  # of those that belong together
    async for line in _lines(answer):
        if not line:
            if data:
                gathered.append(Sent(name, _object(b"\n".join(data))))
                if is_last or name == "compacted":
                    yield Together(last_id, tuple(gathered))
                    gathered.clear()
            name, data, is_last = "message", [], not has_ids
            continue
        label, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match label:
            case b"event":
                name = value.decode()
            case b"data":
                data.append(value)
            case b"id":
                last_id, is_last = value.decode(), b"." not in value
            case _:  # a comment, as a sign of life; or what later releases may say
                pass


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Without their ends; however long they are."""
    rest: list[bytes] = []
    async for chunk in answer.content.iter_any():
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield (b"".join((*rest, line)) if rest else line).removesuffix(b"\r")
            rest.clear()
        if last:
            rest.append(last)


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise BadAnswer(f"an event without a JSON object: {data[:100]!r}")
    return document
