"""``put``, ``get``, ``delete``, ``list``: the key-value calls for people and scripts.

Values are bytes: ``get`` writes exactly what ``put`` was given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import click

from raftkv.cli.options import Command, cluster_of, cluster_options, once_option, raw_bytes, raw_key
from raftkv.cli.output import Failure, on_terminal, print_json, printable, reported
from raftkv.client import Endpoint, Refused
from raftkv.client import kv as calls

PAGE_ITEMS = 100  # of up to 1 MiB each
PAGE_KEYS = 1_000
TERMINAL_ITEMS = 1_000  # nobody reads more on a screen; a pipe or --limit gets them all
PREVIEW_CHARACTERS = 60


@click.command()
@click.argument("key", callback=raw_key)
@click.argument("value", callback=raw_bytes, required=False)
@click.option(
    "--if-revision", type=click.IntRange(min=0), metavar="N", help="Only if the key was last changed at N."
)
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@click.option("--ttl", metavar="DURATION", help="How long the key is to live: 500ms, 30s, 5m, 2h.")
@click.option("--lease", type=click.IntRange(min=1), metavar="ID", help="A lease that the key goes with.")
@click.option("--content-type", metavar="TYPE", help="What the value is: kept, and said with it.")
@once_option
@cluster_options
def put(
    *,
    key: bytes,
    value: bytes | None,
    if_revision: int | None,
    if_absent: bool,
    ttl: str | None,
    lease: int | None,
    content_type: str | None,
    token: str | None,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """Set KEY to VALUE.

    VALUE "-", or none in a pipe, is read from standard input as it is. Put "--" before a key or value that
    begins with a dash.
    """
    if if_absent and if_revision is not None:
        raise click.UsageError("--if-revision and --if-absent exclude each other")
    if ttl is not None and lease is not None:
        raise click.UsageError("--ttl and --lease exclude each other: a key has one lease")
    if value is None and sys.stdin.isatty():
        raise click.UsageError('give a VALUE, or "-" to read it from standard input')
    if value is None or value == b"-":
        value = sys.stdin.buffer.read()
    with reported():
        cluster = cluster_of(endpoints, timeout_s)
        done = calls.put(
            cluster,
            key,
            value,
            if_revision=if_revision,
            if_absent=if_absent,
            ttl=ttl,
            lease=lease,
            content_type=content_type,
            token=token,
        )
    if output == "json":
        print_json(done)
        return
    what = "created" if done.get("created") else "replaced"
    with_lease = f", lease {done['lease']}" if done.get("lease") else ""
    revision, version = done.get("revision"), done.get("version")
    click.echo(f"{what} {printable(key)} (revision {revision}, version {version}{with_lease})")


def freshness_options(command: Command) -> Command:
    """``--consistency``, ``--max-staleness``, ``--min-revision`` and ``--revision``; see ``_freshness``."""
    command = click.option(
        "--revision", type=click.IntRange(min=1), metavar="N", help="As it was at revision N."
    )(command)
    command = click.option(
        "--min-revision", type=click.IntRange(min=1), metavar="N", help="Wait until the node has applied N."
    )(command)
    command = click.option(
        "--max-staleness",
        metavar="DURATION",
        help="With --consistency stale: refuse what may be older (500ms, 5s).",
    )(command)
    return click.option(
        "--consistency",
        type=click.Choice(["linearizable", "lease", "stale"]),
        default="linearizable",
        show_default=True,
        help="lease: by the leader's clock; stale: what the node that is asked has, without a quorum.",
    )(command)


def _freshness(
    consistency: str, max_staleness: str | None, min_revision: int | None, revision: int | None
) -> calls.Freshness:
    if max_staleness is not None and consistency != "stale":
        raise click.UsageError("--max-staleness goes with --consistency stale")
    return calls.Freshness(consistency, max_staleness, min_revision or 0, revision or 0)


@click.command()
@click.argument("key", callback=raw_key)
@freshness_options
@cluster_options
def get(
    *,
    key: bytes,
    consistency: str,
    max_staleness: str | None,
    min_revision: int | None,
    revision: int | None,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """Write the value of KEY to standard output, byte for byte.

    With --output json: its revisions too. Exits 1 where there is no such key.
    """
    freshness = _freshness(consistency, max_staleness, min_revision, revision)
    try:
        with reported():
            cluster = cluster_of(endpoints, timeout_s)
            if output == "json":
                print_json(calls.get_envelope(cluster, key, freshness))
                return
            value = calls.get(cluster, key, freshness)
    except Failure as failure:
        cause = failure.__cause__
        if isinstance(cause, Refused) and cause.problem.code == "key_not_found":
            raise Failure(f"there is no key {printable(key)}") from cause
        raise
    sys.stdout.buffer.write(value)
    sys.stdout.buffer.flush()
    if on_terminal() and value and not value.endswith(b"\n"):
        click.echo(err=True)  # NB: not on stdout, which gets the value and nothing else


@click.command()
@click.argument("key", callback=raw_key)
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY, at once.")
@click.option("--end", callback=raw_bytes, metavar="END", help="All keys from KEY to before END, at once.")
@click.option(
    "--if-revision", type=click.IntRange(min=1), metavar="N", help="Only if the key was last changed at N."
)
@once_option
@cluster_options
def delete(
    *,
    key: bytes,
    prefix: bool,
    end: bytes | None,
    if_revision: int | None,
    token: str | None,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """Delete KEY. That there was none is no error."""
    if prefix + (end is not None) + (if_revision is not None) > 1:
        raise click.UsageError("--prefix, --end and --if-revision exclude each other")
    keys: calls.Range = (
        (("prefix", key),) if prefix else () if end is None else (("start", key), ("end", end))
    )
    with reported():
        cluster = cluster_of(endpoints, timeout_s)
        if keys:
            done = calls.delete_range(cluster, keys, token=token)
        else:
            done = calls.delete(cluster, key, if_revision=if_revision, token=token)
    if output == "json":
        print_json(done)
    elif keys:
        number = "1 key" if done.get("deleted") == 1 else f"{done.get('deleted')} keys"
        click.echo(f"deleted {number} (revision {done.get('revision')})")
    elif done.get("deleted"):
        click.echo(f"deleted {printable(key)} (revision {done.get('revision')})")
    else:
        click.echo(f"there was no key {printable(key)}")


@click.command("list")
@click.argument("prefix", callback=raw_bytes, default="")
@click.option("--start", callback=raw_bytes, metavar="KEY", help="Instead of PREFIX: from KEY on.")
@click.option("--end", callback=raw_bytes, metavar="KEY", help="Instead of PREFIX: to before KEY.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N keys.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option(
    "--delimiter",
    callback=raw_bytes,
    help="Show keys with it behind PREFIX as one folder, as ls does with /.",
)
@click.option("--count", is_flag=True, help="Only how many there are.")
@freshness_options
@cluster_options
def list_keys(
    *,
    prefix: bytes,
    start: bytes | None,
    end: bytes | None,
    limit: int | None,
    keys_only: bool,
    reverse: bool,
    delimiter: bytes | None,
    count: bool,
    consistency: str,
    max_staleness: str | None,
    min_revision: int | None,
    revision: int | None,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """List the keys that begin with PREFIX, in byte order.

    A table on a terminal (its first 1,000 keys, or --limit). In a pipe one line each: the key, a tab and
    the value, with control characters, backslashes and bytes that aren't UTF-8 as \\n, \\\\, \\xff. JSON is
    exact.
    """
    if prefix and (start is not None or end is not None):
        raise click.UsageError("give a PREFIX, or --start and --end")
    named = (("start", start), ("end", end))
    keys = tuple((name, each) for name, each in named if each is not None) or (("prefix", prefix),)
    table = output == "table" and on_terminal()
    freshness = _freshness(consistency, max_staleness, min_revision, revision)
    asked = limit if limit is not None or not table else TERMINAL_ITEMS + 1
    with reported():
        cluster = cluster_of(endpoints, timeout_s)
        if count:
            found = calls.count(cluster, keys, freshness)
            print_json(found) if output == "json" else click.echo(found["count"])
            return
        runs = calls.pages(
            cluster,
            keys,
            limit=asked,
            page_items=PAGE_KEYS if keys_only else PAGE_ITEMS,
            keys_only=keys_only,
            reverse=reverse,
            delimiter=delimiter or None,
            freshness=freshness,
        )
        items = chain.from_iterable(page.items for page in runs)
        if table:
            _print_table(items, keys_only, limit)
        elif output == "json":
            _print_array(items)
        else:
            for item in items:
                line = printable(calls.name_bytes(item))
                is_bare = keys_only or ("key" not in item and "key_base64" not in item)
                click.echo(line if is_bare else f"{line}\t{printable(calls.item_bytes(item, 'value'))}")


def _print_array(items: Iterator[dict[str, Any]]) -> None:
    # One array, an item a line, written as it comes: it may be long.
    separator = "[\n"
    for item in items:
        click.echo(separator + json.dumps(item, ensure_ascii=False), nl=False)
        separator = ",\n"
    click.echo("[]" if separator == "[\n" else "\n]")


def _print_table(items: Iterator[dict[str, Any]], keys_only: bool, limit: int | None) -> None:
    from rich.console import Console  # noqa: PLC0415 - only where it is needed: it is slow to import
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = list(items if limit is not None else islice(items, TERMINAL_ITEMS))
    columns = ["KEY"] if keys_only else ["KEY", "VALUE", "REVISION", "VERSION"]
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in ("REVISION", "VERSION") else "left")
    for item in shown:
        row = [Text(printable(calls.name_bytes(item)), style="cyan", overflow="fold")]
        if not keys_only:
            preview = Text(printable(calls.item_bytes(item, "value")[: PREVIEW_CHARACTERS * 4]))
            preview.truncate(PREVIEW_CHARACTERS, overflow="ellipsis")
            row += [preview, Text(str(item.get("mod_revision", ""))), Text(str(item.get("version", "")))]
        grid.add_row(*row)
    Console().print(grid if shown else "no keys", highlight=False)
    if next(items, None) is not None:
        click.echo(f"... and more: give --limit N, or pipe it (first {TERMINAL_ITEMS:,} shown)", err=True)
