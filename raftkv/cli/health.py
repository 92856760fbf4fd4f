"""``raftkv health``: one question to one node, for Docker's HEALTHCHECK and its like. Starts fast."""

from __future__ import annotations

import json

import click

from raftkv.cli.options import endpoints_option, timeout_option
from raftkv.cli.output import Failure
from raftkv.client import Endpoint, NoReply, NotSent, Reply, Request, exchange


@click.command()
@click.option(
    "--ready", is_flag=True, help="Ask whether it can serve (has a leader), not only whether it is alive."
)
@endpoints_option
@timeout_option("3s", "How long to wait for the answer.")
def health(ready: bool, endpoints: tuple[Endpoint, ...], timeout_s: float) -> None:
    """Is the first endpoint alive? Exits 0 if it is, else 1."""
    endpoint, what = endpoints[0], "ready" if ready else "alive"
    try:
        reply = exchange(endpoint, Request("GET", "/readyz" if ready else "/livez"), timeout_s)
    except (NotSent, NoReply) as error:
        raise Failure(f"{endpoint} is not {what}: {error}") from error
    if reply.status != 200:
        raise Failure(f"{endpoint} is not {what}: {_reason(reply)}")
    click.echo(f"{endpoint} is {what}")


def _reason(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["status"])
    except (ValueError, KeyError, TypeError):
        return f"it answered {reply.status}"
