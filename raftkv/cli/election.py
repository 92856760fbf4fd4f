"""``raftkv election ...``: lead while a command runs, see and follow who leads, resign."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from raftkv.cli.guarded import had, holding_options, run_while_held
from raftkv.cli.holding import Queue
from raftkv.cli.options import cluster_of, cluster_options, output_option, raw_bytes, raw_key
from raftkv.cli.output import (
    Failure,
    document_of,
    on_terminal,
    print_json,
    printable,
    reported,
    text_or_base64,
)
from raftkv.cli.queues import holder_cells, show, states
from raftkv.client import Endpoint, Request

ELECTIONS = "/v1/elections"

name_argument = click.argument("name", callback=raw_key)
lease_option = click.option(
    "--lease", type=click.IntRange(min=1), metavar="ID", required=True, help="The lease that it leads with."
)


@click.group()
def election() -> None:
    """Elections: one of those who campaign leads, and says something to all."""


@election.command(context_settings={"ignore_unknown_options": True})
@name_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--value", callback=raw_bytes, default="", help="What others are told of who leads: an address, say."
)
@click.option(
    "--lease",
    type=click.IntRange(min=1),
    metavar="ID",
    help="Without a COMMAND: lead for as long as this lease lives, or until it resigns.",
)
@holding_options
@output_option
def campaign(
    *,
    name: bytes,
    command: tuple[str, ...],
    value: bytes,
    lease: int | None,
    ttl_s: float,
    output: str,
    **options: Any,
) -> None:
    """Wait until this one leads NAME, run COMMAND while it does, and resign.

    COMMAND is told, ended and answered for as raftkv lock does it: see there. With --lease instead it says
    when that lease leads, and ends; keep it alive by raftkv lease keepalive.
    """
    queue = Queue(ELECTIONS, "lead of", name)
    if (lease is None) == (not command):
        raise click.UsageError("give a COMMAND to run while it leads, behind --, or --lease")
    if lease is None:
        sys.exit(run_while_held(queue, command, ttl_s=ttl_s, value=value, **options))
    held = had(queue=queue, lease=lease, value=value, **options)
    if output == "json":
        print_json(held)
    else:
        click.echo(f"lease {lease} has {queue} (fencing token {held.get('fencing_token')})")


@election.command()
@name_argument
@cluster_options
def leader(name: bytes, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Show who leads NAME, and how many wait to. Exits 1 where nobody does."""
    show(cluster_of(endpoints, timeout_s), Queue(ELECTIONS, "lead of", name), "leader", output)


@election.command()
@name_argument
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N lines.")
@cluster_options
def observe(
    name: bytes, limit: int | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Print who leads NAME, now and each time that another does, or says something else.

    A line for each: "leads", the value, the fencing token and the lease, with tabs between, or "nobody". Who
    led for a moment only may be left out. It goes on at another node when its own dies; Ctrl-C ends it.
    """
    path = f"{Queue(ELECTIONS, 'lead of', name).path}/observe"
    for event in states(cluster_of(endpoints, timeout_s), path, (), "leader", limit):
        leads = event.get("leader")
        if output == "json":
            print_json(event)
            continue
        word, colour = ("leads", "green") if leads else ("nobody", "yellow")
        cells = holder_cells(leads) if leads else ()
        click.echo("\t".join((click.style(word, fg=colour) if on_terminal() else word, *cells)))


@election.command()
@name_argument
@click.argument("value", callback=raw_bytes)
@lease_option
@cluster_options
def proclaim(
    *, name: bytes, value: bytes, lease: int, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Say VALUE instead to those who look who leads NAME."""
    queue, query = Queue(ELECTIONS, "lead of", name), (("lease", str(lease)),)
    body = json.dumps(text_or_base64("value", value)).encode()
    with reported():
        done = document_of(cluster_of(endpoints, timeout_s).write(Request("PUT", queue.path, query, body)))
    if output == "json":
        print_json(done)
    else:
        click.echo(f"lease {lease} has {queue}, and says {printable(value)}")


@election.command()
@name_argument
@lease_option
@cluster_options
def resign(name: bytes, lease: int, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Let the next one lead NAME, or wait for it no more. Exits 1 where LEASE neither led nor waited.

    A COMMAND that campaign runs is not told of it: raftkv lease revoke ends that, too.
    """
    queue, query = Queue(ELECTIONS, "lead of", name), (("lease", str(lease)),)
    with reported():
        done = document_of(cluster_of(endpoints, timeout_s).write(Request("DELETE", queue.path, query)))
    if output == "json":
        print_json(done)
    elif done.get("deleted"):
        click.echo(f"lease {lease} has left {queue} (revision {done.get('revision')})")
    if not done.get("deleted"):
        raise Failure(f"lease {lease} neither has {queue} nor waits for it")
