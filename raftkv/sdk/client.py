"""``AsyncClient``: all that a cluster offers to programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from raftkv.sdk.calling import Caller
from raftkv.sdk.cluster import ClusterCalls
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


class AsyncClient(KvCalls, LeaseCalls, LockCalls, ServiceCalls, WatchCalls, ClusterCalls):
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
