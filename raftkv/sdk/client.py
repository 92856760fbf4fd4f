"""``AsyncClient``: all that a cluster offers to programs."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from raftkv.sdk.calling import Ask, Caller
from raftkv.sdk.endpoints import Endpoints
from raftkv.sdk.forms import Key
from raftkv.sdk.kv import KvCalls
from raftkv.sdk.leases import LeaseCalls
from raftkv.sdk.locks import LockCalls
from raftkv.sdk.services import ServiceCalls
from raftkv.sdk.view import View
from raftkv.sdk.watching import WatchCalls

DEFAULT_TIMEOUT_S = 10.0
ENDPOINTS_VARIABLE = "RAFTKV_ENDPOINTS"
DEFAULT_ENDPOINTS = "http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003"
_CHUNK_BYTES = 64 << 10
_STALL_S = 30.0


class AsyncClient(KvCalls, LeaseCalls, LockCalls, ServiceCalls, WatchCalls):
    """A client of one cluster, for one event loop; any number of tasks may share it. Close it, or use it as
    ``async with AsyncClient("http://10.0.0.1:8001,http://10.0.0.2:8001") as client``.

    Any node takes any request. One that fails is left for the next, and the other members are learned from
    those given. Writes carry an idempotency key, so that one whose answer is lost is asked again until the
    time is up, and is done once.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        idempotent: bool = True,
        learn: bool = True,
    ) -> None:
        """``endpoints`` None: those that ``RAFTKV_ENDPOINTS`` names, as for the command line, else three
        nodes on this machine. ``timeout``: seconds for a call, all attempts together. ``idempotent`` False:
        no idempotency keys, and a write whose outcome isn't known is raised as such. ``learn`` False: no
        nodes but those given.

        Raises ``ValueError`` for what is no endpoint.
        """
        if endpoints is None:
            endpoints = os.environ.get(ENDPOINTS_VARIABLE) or DEFAULT_ENDPOINTS
        caller = Caller(Endpoints(endpoints), timeout, learn=learn, idempotent=idempotent)
        super().__init__(caller)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All that are known, those given first."""
        return self._caller.endpoints.all

    def view(self, prefix: Key) -> View:
        """``async with client.view("config/") as view``: a mapping that follows what is there."""
        return View(self._caller, prefix)

    # -- the cluster ---------------------------------------------------------------------------------------

    async def status(self, *, timeout: float | None = None) -> Mapping[str, Any]:
        """Of the node that answers, as ``GET /v1/status`` gives it."""
        return (await self._caller.call(Ask("GET", "/v1/status", timed=False), timeout)).json()

    async def cluster(self, *, timeout: float | None = None) -> Mapping[str, Any]:
        """All members as one node sees them, as ``GET /v1/cluster`` gives it."""
        return (await self._caller.call(Ask("GET", "/v1/cluster", timed=False), timeout)).json()

    async def transfer(self, to: str | None = None, *, timeout: float | None = None) -> str:
        """Hand the lead to the node ``to``, or to who is fittest. Returns who leads then."""
        body = orjson.dumps({} if to is None else {"id": to})
        ask = Ask("POST", "/v1/cluster/leader", body=body, repeatable=False)
        return str((await self._caller.call(ask, timeout)).json()["leader"])

    async def backup(self, *, timeout: float | None = None) -> AsyncGenerator[bytes]:
        """The bytes of a backup, for ``raftkv restore``, piece by piece. Raises ``Unreachable`` if it breaks
        off: what came is no backup then.
        """
        head_s = self._caller.timeout_s if timeout is None else timeout
        endpoint = self._caller.endpoints.current
        ask = Ask("GET", "/v1/snapshot")
        async with self._caller.stream(endpoint, ask, head_s=head_s, stall_s=_STALL_S) as answer:
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                yield chunk

    # -- the end -------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Idempotent."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
