"""``raftkv transfer``: hand the lead to another node, as before maintenance of the one that leads."""

from __future__ import annotations

import json

import click

from raftkv.cli.options import cluster_of, cluster_options
from raftkv.cli.output import Failure, UnknownOutcome, print_json, reported
from raftkv.client import Endpoint, OutcomeUnknown, Request


@click.command()
@click.argument("node", required=False)
@cluster_options
def transfer(node: str | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Let NODE lead; without it, the follower that is most up to date.

    Requests wait meanwhile and don't fail. Exits 3 when it was tried and didn't happen in time.
    """
    body = json.dumps({} if node is None else {"id": node}).encode()
    try:
        with reported():
            request = Request("POST", "/v1/cluster/leader", (), body)
            reply = cluster_of(endpoints, timeout_s).write(request)
    except UnknownOutcome as failure:
        cause = failure.__cause__
        reason = cause.reason if isinstance(cause, OutcomeUnknown) else str(failure)
        raise UnknownOutcome(f"{reason} (it may yet happen: see raftkv status)") from cause
    try:
        done = json.loads(reply.body)
        line = f"{done['leader']} leads (term {done['term']})"
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{reply.endpoint} did not say who leads: is it a raftkv node?") from error
    if output == "json":
        print_json(done)
    else:
        click.echo(line)
