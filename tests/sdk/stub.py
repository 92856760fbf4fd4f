"""A node that answers as it is told, request by request: what a client makes of it is what is tested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Answer:
    document: Mapping[str, Any]
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Server-sent events; ``ends``: the connection breaks after them, else it stays."""

    text: str
    ends: bool = True


LOST = "lost"  # the connection is closed without an answer
HANGS = "hangs"  # until the client gives up

Step = Answer | Stream | str


def problem(status: int, code: str, outcome: str = "not_applied", **extra: Any) -> Answer:
    document = {"status": status, "code": code, "detail": f"it is {code}", "outcome": outcome, **extra}
    return Answer(document, status, "application/problem+json")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Stub:
    """``script`` is what it answers, in turn; the last step from then on. ``/v1/cluster`` is apart."""

    script: list[Step] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _runner: web.ServerRunner | None = None
    url: str = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/cluster":
            members = [{"url": url} for url in self.members]
            return web.Response(body=orjson.dumps({"members": members}))
        body = await request.read()
        self.requests.append(
            Request(request.method, request.path, dict(request.query), dict(request.headers), body)
        )
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        match step:
            case Answer(document, status, content_type, headers):
                body = orjson.dumps(document)
                sent = {"Content-Type": content_type, **headers}
                return web.Response(body=body, status=status, headers=sent)
            case Stream(text, ends):
                return await _streamed(request, text, ends)
            case "hangs":
                await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


async def _streamed(request: web.BaseRequest, text: str, ends: bool) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(text.encode())
    if not ends:
        await asyncio.Event().wait()
    assert request.transport is not None
    request.transport.close()
    return response


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)
