"""``raftkv service ...``: be listed while a command runs; see and follow who is listed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import click

from raftkv.cli.child import POLL_S, child, end_on_sigterm, shells_code
from raftkv.cli.holding import Holding, insist
from raftkv.cli.options import cluster_of, cluster_options, duration, raw_bytes, raw_key
from raftkv.cli.output import (
    Failure,
    document_of,
    on_terminal,
    print_json,
    print_rows,
    printable,
    reported,
)
from raftkv.cli.queues import states
from raftkv.client import ClientError, Endpoint, Request
from raftkv.client.kv import item_bytes

SERVICES = "/v1/services"
COLUMNS = ("id", "address", "lease", "meta")
STYLES = {"id": "cyan", "address": "green"}
COLOURS = {"added": "green", "removed": "red", "changed": "yellow"}
AGAIN_S = 1.0  # between attempts to be listed again

name_argument = click.argument("name", callback=raw_key)


@click.group()
def service() -> None:
    """Services: instances that are listed as long as they live."""


def json_value(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no JSON: {error}") from None


@service.command(context_settings={"ignore_unknown_options": True})
@name_argument
@click.argument("address")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--id", "instance", help="Its name among the instances; else a chance one.")
@click.option("--meta", callback=json_value, metavar="JSON", help="What else others are told of it.")
@click.option(
    "--ttl",
    "ttl_s",
    callback=duration,
    default="10s",
    show_default=True,
    metavar="DURATION",
    help="How long it is listed after it was last kept alive.",
)
@click.option(
    "--lease", type=click.IntRange(min=1), metavar="ID", help="Without a COMMAND: a lease that it goes with."
)
@cluster_options
def register(
    *,
    name: bytes,
    address: str,
    command: tuple[str, ...],
    instance: str | None,
    meta: Any,
    ttl_s: float,
    lease: int | None,
    endpoints: tuple[Endpoint, ...],
    timeout_s: float,
    output: str,
) -> None:
    """List an instance of the service NAME, found at ADDRESS, while COMMAND runs.

    It is kept alive, listed again should the cluster have taken it for dead, and no more when COMMAND ends,
    whose exit code is this one's. Without a COMMAND it is listed for --ttl, or with --lease: keep it alive by
    raftkv lease keepalive.
    """
    if command and lease is not None:
        raise click.UsageError("--lease goes without a COMMAND, for which a lease is kept alive")
    entry = {"id": instance or token_hex(8), "address": address, "meta": meta}
    if command:
        sys.exit(
            _while_running(
                command, path=_path(name), entry=entry, endpoints=endpoints, ttl_s=ttl_s, timeout_s=timeout_s
            )
        )
    goes = {"ttl": f"{round(ttl_s * 1000)}ms"} if lease is None else {"lease": lease}
    request = Request("POST", _path(name), (), json.dumps({**entry, **goes}).encode())
    with reported():
        done = document_of(cluster_of(endpoints, timeout_s).write(request))
    if output == "json":
        print_json(done)
    else:
        click.echo(f"{entry['id']} is listed, and goes with lease {done.get('lease')}")


def _while_running(
    command: tuple[str, ...],
    *,
    path: str,
    entry: Mapping[str, Any],
    endpoints: tuple[Endpoint, ...],
    ttl_s: float,
    timeout_s: float,
) -> int:
    """The command's exit code. Raises ``Failure`` where the instance can't be listed at first."""
    end_on_sigterm()
    with reported():
        holding = _listed(path, entry, endpoints, ttl_s, timeout_s)
    try:
        with child(command, {}) as process:
            tried_s = 0.0
            while True:
                try:
                    return shells_code(process.wait(POLL_S))
                except subprocess.TimeoutExpired:
                    pass
                if holding.sure_s > 0 or time.monotonic() < tried_s + AGAIN_S:
                    continue
                tried_s = time.monotonic()
                try:
                    # NB: not longer than that: the command's end is not seen meanwhile.
                    holding = _listed(path, entry, endpoints, ttl_s, min(timeout_s, AGAIN_S))
                except ClientError as error:
                    click.echo(f"not listed at the moment: {error}", err=True)
    finally:
        try:
            holding.close(timeout_s)
        except ClientError as error:
            click.echo(f"it is still listed, for {ttl_s:g} s at most: {error}", err=True)


def _listed(
    path: str, entry: Mapping[str, Any], endpoints: tuple[Endpoint, ...], ttl_s: float, timeout_s: float
) -> Holding:
    """The lease that it goes with. Raises ``ClientError``."""
    holding = Holding(endpoints, max(100, round(ttl_s * 1000)), timeout_s)
    request = Request("POST", path, (), json.dumps({**entry, "lease": holding.lease}).encode())
    try:
        # NB: it may be repeated: of one id there is one instance.
        insist(endpoints, lambda: (request, timeout_s / 2), time.monotonic() + timeout_s)
    except ClientError:
        holding.close(timeout_s)
        raise
    return holding


@service.command("list")
@click.argument("name", callback=raw_bytes, required=False)
@cluster_options
def list_services(name: bytes | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """List the instances of NAME that live; without it, the services that have one."""
    path = _path(name) if name else SERVICES
    with reported():
        found = document_of(cluster_of(endpoints, timeout_s).read(Request("GET", path)))
    if output == "json":
        print_json(found)
    elif not name:
        names = [(printable(item_bytes(each, "name")),) for each in found.get("services", ())]
        print_rows(("service",), names, empty="no services", styles={"service": "cyan"})
    else:
        rows = [_cells(each) for each in found.get("instances", ())]
        print_rows(COLUMNS, rows, empty=f"nobody serves {printable(name)}", styles=STYLES)


@service.command("watch")
@name_argument
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after N states.")
@cluster_options
def watch_service(
    name: bytes, limit: int | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Print the instances of NAME that live, and what becomes of them.

    A line for each that was added, changed or removed: that word, its id, address, lease and meta, with tabs
    between. With --output json all instances, each time that something changes. It goes on at another node
    when its own dies; Ctrl-C ends it.
    """
    before: dict[str, tuple[str, ...]] = {}
    cluster = cluster_of(endpoints, timeout_s)
    for event in states(cluster, _path(name), (("watch", "true"),), "instances", limit):
        if output == "json":
            print_json(event)
            continue
        now = {str(each["id"]): _cells(each) for each in event["instances"]}
        for word, cells in _differences(before, now):
            shown = click.style(word, fg=COLOURS[word]) if on_terminal() else word
            click.echo("\t".join((shown, *cells)))
        before = now


@service.command()
@name_argument
@click.argument("instance", metavar="ID", callback=raw_key)
@cluster_options
def remove(
    name: bytes, instance: bytes, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """List the instance ID of NAME no more. Exits 1 where there was none."""
    request = Request("DELETE", f"{_path(name)}/{quote(instance, safe='')}")
    with reported():
        done = document_of(cluster_of(endpoints, timeout_s).write(request))
    what = f"instance {printable(instance)} of {printable(name)}"
    if output == "json":
        print_json(done)
    elif done.get("deleted"):
        click.echo(f"removed {what} (revision {done.get('revision')})")
    if not done.get("deleted"):
        raise Failure(f"there is no {what}")


def _differences(
    before: Mapping[str, tuple[str, ...]], now: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, tuple[str, ...]]]:
    """(what became of it, its cells), those that are gone first."""
    gone = [("removed", cells) for id_, cells in before.items() if id_ not in now]
    found = [
        ("changed" if id_ in before else "added", cells)
        for id_, cells in now.items()
        if before.get(id_) != cells
    ]
    return [*gone, *found]


def _cells(instance: Mapping[str, Any]) -> tuple[str, ...]:
    meta = instance.get("meta")
    told = "" if meta is None else json.dumps(meta, ensure_ascii=False)
    texts = (str(instance["id"]), str(instance["address"]), str(instance.get("lease") or ""), told)
    return tuple(printable(text.encode("utf-8", "surrogateescape")) for text in texts)


def _path(name: bytes) -> str:
    return f"{SERVICES}/{quote(name, safe='')}"
