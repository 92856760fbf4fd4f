"""What several commands share: the types of their parameters, and the options that name a cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from raftkv.client import Cluster, Endpoint

DEFAULT_ENDPOINTS = "http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003"
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_TIMEOUT_S = 3600.0

Command = TypeVar("Command", bound=Callable[..., Any])


def duration(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """``500ms``, ``30s``, ``5m``: seconds, above zero, an hour at most."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value.strip())
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise click.BadParameter(f"{value!r} is no duration up to an hour: give 500ms, 5s or 2m")
    return seconds


def endpoint_list(ctx: click.Context, parameter: click.Parameter, value: Any) -> tuple[Endpoint, ...]:
    """Comma-separated URLs (in a TOML file a list will do), without repeats."""
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    try:
        found = [Endpoint.parse(str(part)) for part in parts if str(part).strip()]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not found:
        raise click.BadParameter("give at least one http://host:port")
    return tuple(dict.fromkeys(found))


def raw_bytes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    """The argument's bytes as the shell passed them, UTF-8 or not."""
    return None if value is None else os.fsencode(value)


def raw_key(ctx: click.Context, parameter: click.Parameter, value: str) -> bytes:
    if not value:
        raise click.BadParameter("a key has at least one byte")
    return os.fsencode(value)


endpoints_option = click.option(
    "--endpoints",
    type=click.UNPROCESSED,
    callback=endpoint_list,
    default=DEFAULT_ENDPOINTS,
    show_default=True,
    metavar="URL,URL,...",
    help="The nodes to ask, in this order.",
)


once_option = click.option(
    "--idempotency-key",
    "token",
    metavar="TOKEN",
    help="Any text: what is sent again with it, within an hour, is done once.",
)


def timeout_option(default: str, what: str) -> Callable[[Command], Command]:
    """``--timeout``, in the command's arguments as ``timeout_s``."""
    return click.option(
        "--timeout",
        "timeout_s",
        callback=duration,
        default=default,
        show_default=True,
        metavar="DURATION",
        help=what,
    )


output_option = click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="table: for people, plain lines in a pipe. json: for machines.",
)


def cluster_options(command: Command) -> Command:
    """``--endpoints``, ``--timeout`` and ``--output``; see ``cluster_of``."""
    command = output_option(command)
    command = timeout_option("5s", "How long to try, in all; each endpoint gets half of what is left.")(
        command
    )
    return endpoints_option(command)


def cluster_of(endpoints: tuple[Endpoint, ...], timeout_s: float) -> Cluster:
    return Cluster(endpoints, timeout_s)
