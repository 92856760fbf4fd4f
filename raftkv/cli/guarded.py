"""A command that is run while this, and nobody else, holds a lock or leads an election."""

from __future__ import annotations

import subprocess
from typing import Any

import click

from raftkv.cli.child import POLL_S, child, end_on_sigterm, shells_code
from raftkv.cli.holding import Holding, Lost, Queue, acquire
from raftkv.cli.options import Command, duration, endpoints_option, timeout_option
from raftkv.cli.output import Failure, reported
from raftkv.client import ClientError, Endpoint, Refused

KILL_SHARE = 1 / 3  # of the ttl, that the command has for its end before it may be another's


def wait_time(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    return 0.0 if value.strip() in ("0", "0s", "0ms") else duration(ctx, parameter, value)


def holding_options(command: Command) -> Command:
    """``--ttl``, ``--wait``, ``--endpoints`` and ``--timeout``, as ``ttl_s``, ``wait_s``, ..."""
    ttl = click.option(
        "--ttl",
        "ttl_s",
        callback=duration,
        default="10s",
        show_default=True,
        metavar="DURATION",
        help="How long after this command's end, if it can't be given up, another may have it.",
    )
    wait = click.option(
        "--wait",
        "wait_s",
        callback=wait_time,
        default="1h",
        show_default=True,
        metavar="DURATION",
        help="How long to wait for it; 0s: not at all.",
    )
    timeout = timeout_option("5s", "How long to try where no node answers.")
    return ttl(wait(endpoints_option(timeout(command))))


def run_while_held(
    queue: Queue,
    command: tuple[str, ...],
    *,
    ttl_s: float,
    wait_s: float,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    value: bytes = b"",
) -> int:
    """Wait for ``queue``, run ``command``, and give it up. The exit code. Raises ``Failure``."""
    end_on_sigterm()
    with reported():
        holding = Holding(endpoints, max(100, round(ttl_s * 1000)), timeout_s)
    try:
        held = had(endpoints, queue, holding.lease, wait_s=wait_s, timeout_s=timeout_s, value=value)
        return _run(holding, queue, command, ttl_s, int(held["fencing_token"]))
    finally:
        try:
            holding.close(timeout_s)
        except ClientError as error:
            click.echo(f"{queue} is not released, and ends by itself within {ttl_s:g} s: {error}", err=True)


def had(
    endpoints: tuple[Endpoint, ...],
    queue: Queue,
    lease: int,
    *,
    wait_s: float,
    timeout_s: float,
    value: bytes = b"",
) -> dict[str, Any]:
    """As ``acquire``. Raises ``Failure``."""
    try:
        with reported():
            return acquire(endpoints, queue, lease, wait_s=wait_s, timeout_s=timeout_s, value=value)
    except Lost as error:
        raise Failure(f"{queue} was not had: {error}") from error
    except Failure as failure:
        cause = failure.__cause__
        if isinstance(cause, Refused) and cause.problem.code == "lock_held":
            raise Failure(f"{queue} is held by another") from cause
        raise


def _run(holding: Holding, queue: Queue, command: tuple[str, ...], ttl_s: float, token: int) -> int:
    told = {
        "RAFTKV_FENCING_TOKEN": str(token),
        "RAFTKV_HELD_LEASE": str(holding.lease),  # NB: RAFTKV_LEASE would be --lease of every put within it
    }
    with child(command, told) as process:
        return _watched(process, holding, queue, ttl_s)


def _watched(process: subprocess.Popen[bytes], holding: Holding, queue: Queue, ttl_s: float) -> int:
    """Until the command has ended, or the queue's place can't be kept. The exit code."""
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
        raise Failure(f"{queue} was lost, and the command ended")
    return shells_code(code)
