"""Services: instances that are listed as long as they live."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import orjson

from raftkv.errors import RaftkvError
from raftkv.sdk.calling import JSON, Caller, Calls
from raftkv.sdk.forms import key_text, name_path, read_field
from raftkv.sdk.leases import KeptLease, LeaseCalls
from raftkv.sdk.results import Instance, read_instance
from raftkv.sdk.streams import follow

_PATH = "/v1/services"
_PAUSE_S = 0.2


class ServiceCalls(Calls):
    async def services(self, *, timeout: float | None = None) -> tuple[str, ...]:
        """Those that have a live instance."""
        document = await self._look(_PATH, timeout=timeout)
        return tuple(key_text(read_field(each, "name")) for each in document["services"])

    async def instances(self, service: str, *, timeout: float | None = None) -> tuple[Instance, ...]:
        """Those that live now."""
        document = await self._look(name_path(_PATH, service), timeout=timeout)
        return tuple(read_instance(service, each) for each in document["instances"])

    async def follow_instances(self, service: str) -> AsyncGenerator[tuple[Instance, ...]]:
        """Those that live now, and again each time that has changed. It has no end."""
        path, query = name_path(_PATH, service), (("watch", "true"),)
        async with aclosing(follow(self._caller, path, query, has_ids=False)) as groups:
            async for group in groups:
                for event in group.events:
                    if "instances" in event.data:
                        yield tuple(read_instance(service, each) for each in event.data["instances"])

    def register(
        self,
        service: str,
        address: str,
        *,
        id: str | None = None,
        ttl: float = 10.0,
        meta: Mapping[str, Any] | None = None,
    ) -> Registration:
        """``async with client.register("web", "10.0.0.7:80")``: listed in the block, and for ``ttl`` seconds
        if this program dies in it. ``id``: its name among the instances; a chance one where it is not given.
        """
        named = id or secrets.token_hex(8)
        return Registration(self._caller, service, address, id=named, ttl=ttl, meta=dict(meta or {}))

    async def deregister(self, service: str, id: str, *, timeout: float | None = None) -> bool:
        """Whether there was such an instance."""
        ask = self._caller.write("DELETE", name_path(_PATH, service, id))
        return bool((await self._caller.call(ask, timeout)).json()["deleted"])


class Registration:
    """An instance that this program keeps listed: also when its lease was lost meanwhile, by a new one."""

    def __init__(
        self,
        caller: Caller,
        service: str,
        address: str,
        *,
        id: str,
        ttl: float,
        meta: dict[str, Any],
    ) -> None:
        self.service = service
        self.address = address
        self.id = id
        self.meta = meta
        self._caller = caller
        self._ttl_s = ttl
        self._kept: KeptLease | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def listed(self) -> bool:
        """Whether it is listed, as far as this program can know."""
        return self._kept is not None and not self._kept.lost

    async def start(self) -> None:
        """Be listed. Raises ``RaftkvError``."""
        await self._register()
        self._task = asyncio.create_task(self._stay())

    async def stop(self) -> None:
        """Be listed no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.stop()

    async def _register(self) -> None:
        kept = KeptLease(LeaseCalls(self._caller), self._ttl_s)
        await kept.start()
        try:
            document = {"id": self.id, "address": self.address, "lease": kept.id, "meta": self.meta}
            ask = self._caller.write(
                "POST", name_path(_PATH, self.service), headers=JSON, body=orjson.dumps(document)
            )
            await self._caller.call(ask)
        except BaseException:
            await asyncio.shield(kept.stop())
            raise
        self._kept = kept

    async def _stay(self) -> None:
        while self._kept is not None:
            await self._kept.wait_lost()
            while not self.listed:
                try:
                    await self._kept.stop()
                    await self._register()
                except RaftkvError:
                    await asyncio.sleep(_PAUSE_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
