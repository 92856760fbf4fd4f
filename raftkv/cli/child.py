"""The command that another one runs: started, told of signals, and its end said as a shell says it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import click

POLL_S = 0.05
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it


def end_on_sigterm() -> None:
    """Until there is a command to be told, as Ctrl-C does: what is held is released."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def shells_code(code: int) -> int:
    """A process's exit code as a shell gives it: 128 + the signal that ended it."""
    return code if code >= 0 else 128 - code


@contextmanager
def child(command: tuple[str, ...], told: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """``command`` runs, with ``told`` in its environment besides ours. Exits where it can't be started."""
    with _signals_handed_on() as to:
        try:
            process = subprocess.Popen(command, env={**os.environ, **told})
        except OSError as error:
            click.echo(f"Error: {command[0]}: {(error.strerror or str(error)).lower()}", err=True)
            sys.exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
        to(process)
        yield process


@contextmanager
def _signals_handed_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """SIGTERM is for the command, once it is told which; Ctrl-C reaches that by itself. It decides what comes
    of it; then what is held is released.
    """
    came = False
    command: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        if command is not None:
            command.terminate()

    def to(process: subprocess.Popen[bytes]) -> None:
        nonlocal command
        command = process
        if came:
            process.terminate()

    # NB: no SIG_IGN, which the command would inherit.
    handlers = {signal.SIGTERM: hand_on, signal.SIGINT: lambda number, frame: None}
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield to
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
