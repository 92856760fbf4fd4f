"""``raftkv watch``: changes as they happen."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import Any

import click

from raftkv.cli.options import cluster_of, cluster_options, raw_bytes
from raftkv.cli.output import Failure, on_terminal, print_json, printable, reported
from raftkv.client import Endpoint
from raftkv.client.kv import item_bytes
from raftkv.client.watch import Query
from raftkv.client.watch import watch as watched

PATIENCE_S = 60.0  # without any node that takes it
COLOURS = {"put": "green", "delete": "red"}


@click.command()
@click.option("--key", callback=raw_bytes, metavar="KEY", help="This key alone.")
@click.option("--prefix", callback=raw_bytes, metavar="PREFIX", help="Keys that begin with it; else all.")
@click.option("--from", "first", type=click.IntRange(min=1), metavar="N", help="From revision N; else now.")
@click.option("--prev", is_flag=True, help="With --output json: what was there before, too.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N changes.")
@cluster_options
def watch(
    *,
    key: bytes | None,
    prefix: bytes | None,
    first: int | None,
    prev: bool,
    limit: int | None,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """Print each change as it happens, in order, none left out and none twice.

    A line for each: its revision, put or delete, the key, and the value, with tabs between. It goes on at
    another node when the one that it asks stops or dies, and ends with Ctrl-C.
    """
    if key is not None and prefix is not None:
        raise click.UsageError("--key and --prefix exclude each other")
    query: Query = (("prefix", prefix or b""),) if key is None else (("key", key),)
    if first is not None:
        query += (("from", str(first)),)
    if prev:
        query += (("prev", "true"),)
    printed = count(1)
    with reported():
        events = watched(
            cluster_of(endpoints, timeout_s), query, patience_s=PATIENCE_S, on_moved=say_that_it_moved
        )
        with closing(events):
            try:
                for event in events:
                    if event["event"] == "progress":
                        continue
                    if event["event"] == "compacted":
                        raise Failure(
                            f"the changes before revision {event['oldest']} are compacted: read what is "
                            f"there now, and watch with --from {event['oldest']} or later"
                        )
                    _print(event, output)
                    if next(printed) == limit:
                        return
            except KeyboardInterrupt:
                return


def say_that_it_moved(why: str) -> None:
    if on_terminal():
        click.echo(f"{why}; going on at another node", err=True)


def _print(event: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(event)
        return
    kind = event["event"]
    shown = click.style(kind, fg=COLOURS.get(kind)) if on_terminal() else kind
    fields = [str(event["revision"]), shown, printable(item_bytes(event, "key"))]
    if kind == "put":
        fields.append(printable(item_bytes(event, "value")))
    click.echo("\t".join(fields))
