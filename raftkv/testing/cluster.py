"""A cluster of processes on this machine, for the time of a test."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

from raftkv.sdk.client import AsyncClient
from raftkv.sdk.sync import Client

HOST = "127.0.0.1"
# Below the range that systems hand out for outgoing connections: one of those could take the port of a node
# that is down.
_PORTS = (20_000, 32_000)
_SHARES = 4  # of them, for processes that run tests side by side
_START_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 15.0
_LOOK_S = 0.05
_LOG_TAIL_LINES = 20


@dataclass(slots=True)
class LocalNode:
    """One node. Its log collects what all its lives said."""

    name: str
    port: int
    directory: Path  # its --data-dir; its log is beside it
    command: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.directory.with_name(f"{self.name}.log")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, or start it again with the data it had."""
        if self.alive:
            raise RuntimeError(f"{self.name} runs already")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it hands over the lead and answers what it was asked. Wait until it is gone."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: it hangs, with its connections open, until ``resume``."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def ready(self) -> bool:
        """Whether it answers and has a leader with a majority."""
        try:
            with urlopen(f"{self.url}/readyz", timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self.process is not None:
            try:
                self.process.wait(_STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class LocalCluster:
    """``with LocalCluster(nodes=3) as cluster, cluster.client() as client: ...``"""

    def __init__(self, nodes: int = 3, *, directory: Path | None = None, options: Sequence[str] = ()) -> None:
        """``directory``: where the nodes keep their data and logs; None: a temporary one that goes in the
        end. ``options``: more of ``raftkv serve``'s, for every node.
        """
        self._temporary = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="raftkv-")) if directory is None else directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.nodes = _planned(nodes, self.directory, options)

    @property
    def endpoints(self) -> str:
        """Of all nodes, as clients and the command line take them."""
        return ",".join(node.url for node in self.nodes)

    def node(self, name: str) -> LocalNode:
        """n1, n2, ... Raises ``KeyError``."""
        return {node.name: node for node in self.nodes}[name]

    def start(self) -> None:
        """Start all nodes, and wait until every one can serve. Raises ``RuntimeError`` with their logs."""
        atexit.register(self._kill)
        for node in self.nodes:
            node.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until every node that runs can serve. Raises ``RuntimeError`` with their logs."""
        deadline = time.monotonic() + _START_DEADLINE_S
        for node in self.nodes:
            while node.process is not None and not node.ready():
                if not node.alive or time.monotonic() > deadline:
                    raise RuntimeError(f"{node.name} does not serve\n{self.logs()}")
                time.sleep(_LOOK_S)

    def client(self, **options: Any) -> Client:
        """As ``raftkv.Client``, with all nodes as its endpoints. The caller closes it."""
        return Client(self.endpoints, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """As ``raftkv.AsyncClient``, with all nodes as its endpoints. The caller closes it."""
        return AsyncClient(self.endpoints, **options)

    def leader(self) -> LocalNode:
        """Who leads. Raises ``RaftkvError`` where no node can be asked, ``KeyError`` while nobody does."""
        with self.client() as client:
            return self.node(str(client.cluster()["leader"]))

    def clear(self) -> None:
        """Delete all keys, and end all leases: locks, elections and services with them."""
        with self.client() as client:
            for lease in client.leases():
                client.revoke(lease.lease)
            client.delete_range(start=b"\x01")

    def logs(self) -> str:
        """The ends of the nodes' logs."""
        parts = []
        for node in self.nodes:
            text = node.log_path.read_text(errors="replace") if node.log_path.exists() else ""
            parts += [f"--- {node.name}", *text.splitlines()[-_LOG_TAIL_LINES:]]
        return "\n".join(parts)

    def stop(self) -> None:
        """End all nodes; a temporary directory goes. Idempotent."""
        self._kill()
        atexit.unregister(self._kill)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _planned(count: int, directory: Path, options: Sequence[str]) -> list[LocalNode]:
    ports = free_ports(2 * count)
    peers: Mapping[str, int] = {f"n{i + 1}": ports[count + i] for i in range(count)}
    cluster = ",".join(f"{name}={HOST}:{port}" for name, port in peers.items())
    # NB: -P, or what lies in the directory of the program that is tested would be imported before all else.
    program = (sys.executable, "-P", "-m", "raftkv", "serve", f"--cluster={cluster}")
    return [
        LocalNode(
            name,
            ports[i],
            directory / name,
            (
                *program,
                f"--id={name}",
                f"--data-dir={directory / name}",
                f"--listen={HOST}:{ports[i]}",
                f"--peer-listen={HOST}:{peer_port}",
                *options,
            ),
        )
        for i, (name, peer_port) in enumerate(peers.items())
    ]


def port_range() -> tuple[int, int]:
    """From where to before where ports are chosen. Workers of pytest-xdist have each their own: between the
    choice of a port and its use another process may choose it, too.
    """
    low, high = _PORTS
    share = (high - low) // _SHARES
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    return low + worker * share, low + (worker + 1) * share


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    found: list[int] = []
    chance = random.SystemRandom()  # others on this machine choose, too
    while len(found) < count:
        port = chance.randrange(*port_range())
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
