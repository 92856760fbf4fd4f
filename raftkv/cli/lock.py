"""``raftkv lock NAME -- COMMAND``: run a command while this, and nobody else, holds a lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from raftkv.cli.holding import Holding, Lost
from raftkv.cli.options import duration, endpoints_option, raw_key, timeout_option
from raftkv.cli.output import Failure, printable, reported
from raftkv.client import ClientError, Endpoint, Refused

POLL_S = 0.05
KILL_SHARE = 1 / 3  # of the ttl, that the command has for its end before the lock may be another's
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it


def wait_option(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    return 0.0 if value.strip() in ("0", "0s", "0ms") else duration(ctx, parameter, value)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", callback=raw_key)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--ttl",
    "ttl_s",
    callback=duration,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long after this command's end, if it can't release the lock, another may have it.",
)
@click.option(
    "--wait",
    "wait_s",
    callback=wait_option,
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for the lock; 0s: not at all.",
)
@endpoints_option
@timeout_option("5s", "How long to try where no node answers.")
def lock(
    *,
    name: bytes,
    command: tuple[str, ...],
    ttl_s: float,
    wait_s: float,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
) -> None:
    """Wait for the lock NAME, run COMMAND while it is held, and release it.

    COMMAND finds the lock's fencing token, a number that grows with every holder, in RAFTKV_FENCING_TOKEN:
    what it writes to should refuse a smaller one than it has seen. If the lock can't be kept, COMMAND gets a
    SIGTERM while the lock is still surely its own, and a SIGKILL before another may have it. Exits with
    COMMAND's own code (128 + its signal), or 1 where the lock was not had, or was lost.
    """
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C: what is held is released
    with reported():
        holding = Holding(endpoints, max(100, round(ttl_s * 1000)), timeout_s)
    try:
        token = _acquired(holding, name, wait_s, timeout_s)
        code = _run(holding, name, command, ttl_s, token)
    finally:
        try:
            holding.close(timeout_s)
        except ClientError as error:
            click.echo(f"the lock is not released, and ends by itself within {ttl_s:g} s: {error}", err=True)
    sys.exit(code)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _acquired(holding: Holding, name: bytes, wait_s: float, timeout_s: float) -> int:
    """The fencing token."""
    try:
        with reported():
            return holding.acquire(name, wait_s, timeout_s)
    except Lost as error:
        raise Failure(f"the lock {printable(name)} was not had: {error}") from error
    except Failure as failure:
        cause = failure.__cause__
        if isinstance(cause, Refused) and cause.problem.code == "lock_held":
            raise Failure(f"the lock {printable(name)} is held by another") from cause
        raise


def _run(holding: Holding, name: bytes, command: tuple[str, ...], ttl_s: float, token: int) -> int:
    environment = {
        **os.environ,
        "RAFTKV_FENCING_TOKEN": str(token),
        "RAFTKV_HELD_LEASE": str(holding.lease),  # NB: RAFTKV_LEASE would be --lease of every put within it
    }
    with _signals_handed_on() as to:
        try:
            process = subprocess.Popen(command, env=environment)
        except OSError as error:
            click.echo(f"Error: {command[0]}: {(error.strerror or str(error)).lower()}", err=True)
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        to(process)
        return _watched(process, holding, name, ttl_s)


def _watched(process: subprocess.Popen[bytes], holding: Holding, name: bytes, ttl_s: float) -> int:
    """Until the command has ended, or the lock can't be kept. The exit code."""
    terminated = False
    while True:
        try:
            code = process.wait(POLL_S)
            break
        except subprocess.TimeoutExpired:
            sure_s = holding.sure_s
        if sure_s <= POLL_S * 2:
            process.kill()
        elif sure_s <= ttl_s * KILL_SHARE and not terminated:
            terminated = True
            process.terminate()
    if terminated or holding.sure_s <= 0:
        raise Failure(f"the lock {printable(name)} was lost, and the command ended")
    return code if code >= 0 else 128 - code


@contextmanager
def _signals_handed_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """SIGTERM is for the command, once it is told which; Ctrl-C reaches that by itself. It decides what comes
    of it; then the lock is released.
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
