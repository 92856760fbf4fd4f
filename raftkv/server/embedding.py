"""A node within another program: on its event loop, without signals of its own.

``async with Node(config) as node:`` is a member of its cluster as any process of ``raftkv serve`` is: it has
its data directory, serves the other nodes, and clients on ``config.listen``. With a ``machine``, commands of
the program's own are replicated in the same log (``kv/hosted.py``).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from raftkv.config import EXIT_CONFIG, Address, Config, parse_cluster
from raftkv.consensus.types import NodeId
from raftkv.errors import BadRequest, StartError
from raftkv.kv.commands import encode_once
from raftkv.kv.hosted import Guest, GuestResult, HostMachine, encode_hosted
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import Malformed, Rejected
from raftkv.sdk.client import AsyncClient
from raftkv.server import joining, start
from raftkv.server.app import NodeProcess
from raftkv.storage.charter import write_charter
from raftkv.storage.datadir import DataDir
from raftkv.storage.files import OsFiles
from raftkv.storage.founding import read_token

T = TypeVar("T")

_FINGERPRINT_BYTES = 16


def node_config(
    node_id: str, data_dir: str | Path, *, listen: str, peer_listen: str, cluster: str, **more: Any
) -> Config:
    """A ``Config`` from texts, as ``raftkv serve`` takes them: addresses are ``HOST:PORT``, ``cluster`` is
    ``n1=HOST:PORT,n2=HOST:PORT`` with the nodes' ``peer_listen``. ``more``: other fields of ``Config``.

    Raises ``StartError``.
    """
    return Config(
        node_id=NodeId(node_id),
        data_dir=Path(data_dir),
        listen=Address.parse(listen, "listen"),
        peer_listen=Address.parse(peer_listen, "peer_listen"),
        cluster=parse_cluster(cluster),
        **more,
    )


class Node:
    """Start and stop it once. All calls are for the event loop that it was started on."""

    def __init__(self, config: Config, machine: Guest | None = None) -> None:
        """``machine``: replicated beside the keys; empty, it becomes what the node has on its disk. All nodes
        of the cluster must have one of its kind.
        """
        self._config = config
        self._guest = machine
        self._process: NodeProcess | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self._config.node_id

    @property
    def machine(self) -> Any:
        """As it was given: what it holds is as far as this node has applied. See ``barrier``."""
        return self._guest

    @property
    def url(self) -> str:
        """Where it serves clients, for this machine."""
        listen = self._config.listen
        return f"http://{Address('127.0.0.1', listen.port) if listen.is_anywhere else listen}"

    @property
    def leader(self) -> str | None:
        """The id of the node that leads, as far as this one knows."""
        return self._started.service.leader

    def status(self) -> dict[str, Any]:
        """As ``GET /v1/status``."""
        return self._started.service.status()

    def client(self, **options: Any) -> AsyncClient:
        """A client of this node, and of the others where this one fails. Close it. ``options``: as
        ``AsyncClient``.
        """
        return AsyncClient(self.url, **options)

    # -- the program's own machine -------------------------------------------------------------------------

    async def propose(
        self, command: bytes, *, timeout: float | None = None, idempotency_key: str | None = None
    ) -> GuestResult:
        """Have every node's machine apply ``command``; the result of this node's. With an
        ``idempotency_key`` it may be proposed again, also at another node, and is applied once.

        Raises ``BadRequest`` with the machine's own words where it refuses the command, and else a
        ``RaftkvError`` whose ``outcome`` says whether it may have been applied.
        """
        if self._guest is None:
            raise TypeError("this node has no machine of its own to propose to: Node(config, machine)")
        if not isinstance(command, bytes):
            raise TypeError(f"a command is bytes, got {command!r}")
        service, encoded = self._started.service, encode_hosted(command)
        timeout_ms = self._config.request_timeout_ms if timeout is None else timeout * 1000
        if idempotency_key is not None:
            await service.require("tokens", timeout_ms)
            fingerprint = sha256(encoded).digest()[:_FINGERPRINT_BYTES]
            encoded = encode_once(idempotency_key, fingerprint, encoded)
        result = await service.propose(encoded, timeout_ms)
        if isinstance(result, Malformed):
            raise BadRequest(result.reason)
        if isinstance(result, Rejected):
            raise BadRequest(result.detail)
        return result  # type: ignore[no-any-return]

    async def barrier(self, *, timeout: float | None = None) -> None:
        """Return once this node's machine has applied all that was acknowledged anywhere before the call:
        what is read from it then, before the next ``await``, is linearizable.

        Raises ``NoQuorum``.
        """
        timeout_ms = self._config.request_timeout_ms if timeout is None else timeout * 1000
        await self._started.service.barrier(timeout_ms)

    # -- its life ------------------------------------------------------------------------------------------

    @property
    def _started(self) -> NodeProcess:
        if self._process is None:
            raise RuntimeError("the node is not started: async with Node(config) as node")
        return self._process

    async def start(self) -> None:
        """Return when it serves; it may not have a leader yet. Raises ``StartError``."""
        if self._running is not None:
            raise RuntimeError("a node is started once")
        opened = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(opened))
        try:
            await asyncio.wait({self._running, opened}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        if self._running.done():
            self._running.result()
            raise StartError("the node stopped before it served", EXIT_CONFIG)

    async def _run(self, opened: asyncio.Future[None]) -> None:
        files = OsFiles()
        data_dir = DataDir.open(files, self._config.data_dir)
        try:
            token = read_token(files, data_dir.path)
            config = dataclasses.replace(self._config, cluster_token=token)
            beginning = await joining.begin(config, files, data_dir.path)
            charter = beginning.charter
            machine = KvMachine() if self._guest is None else HostMachine(self._guest)
            begin = await _to_its_end(start.read, config, files, data_dir.path, charter, machine)
            if beginning.is_new:
                write_charter(files, data_dir.path, charter)
            self._process = NodeProcess(config, charter, begin)
            await self._process.run(lambda: None if opened.done() else opened.set_result(None))
        finally:
            data_dir.close()

    async def wait(self) -> None:
        """Return when the node has stopped, also by itself (removed from its cluster). Raises ``StartError``
        if it failed: a broken disk, say.
        """
        if self._running is not None:
            await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Hand the lead over, answer what was asked, and end. Raises as ``wait``."""
        if self._running is not None:
            if self._process is None:
                self._running.cancel()
            elif not self._running.done():
                self._process.stop("told by its program")
            await asyncio.gather(self._running, return_exceptions=self._process is None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _to_its_end(work: Callable[..., T], *args: Any) -> T:
    """``work`` on another thread, waited for also if this is cancelled: its directory must be its own."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise
