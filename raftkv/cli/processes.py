"""The nodes of ``raftkv local``: child processes, where they listen, and how they start and stop.

Rules: a child gets its own process group, so that Ctrl-C reaches us alone and we stop them in order. A child
that ends is reported, never started again: whoever kills it wants to see what the others do.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from raftkv.client import Endpoint

PROGRAM = (sys.executable, "-P", "-m", "raftkv")  # what the children run; -P: whatever lies around here
HOST = "127.0.0.1"
PEER_PORT_DISTANCE = 1_000
LOG_TAIL_BYTES = 4_096
LOG_TAIL_LINES = 3


@dataclass(slots=True)
class Child:
    """One node. ``process`` is None until it is started; ``reported`` once its end was told."""

    name: str
    port: int
    directory: Path  # its --data-dir; its log is beside it
    command: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    reported: bool = False
    _reader: threading.Thread | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(HOST, self.port)

    @property
    def log_path(self) -> Path:
        return self.directory.with_name(f"{self.name}.log")

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    @property
    def exit_status(self) -> int | None:
        """As ``subprocess`` has it: None while it runs, negative for a signal."""
        return self.process.poll() if self.process is not None else None

    def start(self, *, logs_here: bool) -> None:
        """``logs_here``: its log goes to our stderr, a prefix before each line; else to its file."""
        if logs_here:
            self.process = self._spawn(subprocess.PIPE)
            assert self.process.stdout is not None
            self._reader = threading.Thread(target=_prefix_lines, args=(self.name, self.process.stdout))
            self._reader.daemon = True
            self._reader.start()
        else:
            with self.log_path.open("ab") as log_file:
                self.process = self._spawn(log_file)

    def _spawn(self, output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def log_tail(self) -> str:
        """The last lines of its log file, "" where there is none."""
        try:
            with self.log_path.open("rb") as log_file:
                log_file.seek(max(0, os.fstat(log_file.fileno()).st_size - LOG_TAIL_BYTES))
                return "\n".join(log_file.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:])
        except OSError:
            return ""


def plan(nodes: int, port: int, data_dir: Path, config: Path | None) -> list[Child]:
    """A cluster, not yet started: node i at client port ``port`` + i - 1, its peer port 1000 above."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    ports = {name: port + offset for offset, name in enumerate(names)}
    cluster = ",".join(f"{name}={HOST}:{ports[name] + PEER_PORT_DISTANCE}" for name in names)
    program = (*PROGRAM, *(("--config", str(config)) if config is not None else ()))
    return [
        Child(
            name,
            ports[name],
            data_dir / name,
            # NB: all of it as arguments: an option of the environment or the file would be the same for all.
            # The cluster's name keeps the ports out of its identity: the data outlives a change of --port.
            (
                *program,
                "serve",
                f"--id={name}",
                f"--data-dir={data_dir / name}",
                f"--listen={HOST}:{ports[name]}",
                f"--peer-listen={HOST}:{ports[name] + PEER_PORT_DISTANCE}",
                f"--cluster={cluster}",
                f"--cluster-name=local-{nodes}",
                f"--advertise=http://{HOST}:{ports[name]}",
            ),
        )
        for name in names
    ]


def occupied_ports(children: Sequence[Child]) -> list[int]:
    """Those of the ports that the children need which somebody listens on."""
    taken = []
    for child in children:
        for port in (child.port, child.port + PEER_PORT_DISTANCE):
            with socket.socket() as probe:
                # As the servers do: connections of an earlier run that linger don't count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError:
                    taken.append(port)
    return taken


def stop(children: Sequence[Child], patience_s: float, hurry: threading.Event) -> list[str]:
    """SIGTERM to all, SIGKILL after ``patience_s`` or once ``hurry`` is set; the names of those killed."""
    for child in children:
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while any(child.process and child.exit_status is None for child in children):
        if hurry.wait(0.02) or time.monotonic() > deadline:
            break
    killed = [child for child in children if child.process and child.exit_status is None]
    for child in killed:
        child.signal(signal.SIGKILL)
    for child in children:
        if child.process is not None:
            child.process.wait()
        if child._reader is not None:
            child._reader.join(1.0)
    return [child.name for child in killed]


def end_in_words(status: int) -> str:
    """``was killed by SIGKILL`` or ``ended with exit code 74``."""
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"ended with exit code {status}"


def _prefix_lines(name: str, stream: IO[bytes]) -> None:
    for line in stream:
        sys.stderr.write(f"{name} | {line.decode('utf-8', 'replace').rstrip()}\n")
        sys.stderr.flush()
