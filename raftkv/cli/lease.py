"""``raftkv lease ...``: grant, keep alive, revoke, list and look at leases."""

from __future__ import annotations

import json
from typing import Any

import click

from raftkv.cli.options import cluster_of, cluster_options
from raftkv.cli.output import Failure, document_of, print_json, print_rows, printable, reported
from raftkv.client import Endpoint, Reply, Request
from raftkv.client.kv import item_bytes

PATH = "/v1/leases"
COLUMNS = ("lease", "ttl", "remaining")
PAGE = 1_000

lease_argument = click.argument("lease_id", metavar="LEASE", type=click.IntRange(min=1))


@click.group()
def lease() -> None:
    """Leases: keys that are put with one live as long as it does."""


@lease.command()
@click.argument("ttl")
@click.option("--id", "wanted", type=click.IntRange(min=1), help="Its id; else the cluster chooses one.")
@cluster_options
def grant(
    ttl: str, wanted: int | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Make a lease that ends TTL (30s, 5m) after it was last kept alive, and print its id."""
    body = json.dumps({"ttl": ttl, **({} if wanted is None else {"id": wanted})}).encode()
    with reported():
        reply = cluster_of(endpoints, timeout_s).write(Request("POST", PATH, (), body))
    _show(reply, output, "{lease}")


@lease.command()
@lease_argument
@cluster_options
def keepalive(lease_id: int, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Let LEASE live for its whole time from now on."""
    request = Request("POST", f"{PATH}/{lease_id}/keepalive", (), b"")
    with reported():
        reply = cluster_of(endpoints, timeout_s).read(request)  # it may be repeated, as a read may
    _show(reply, output, "lease {lease} lives for {ttl_ms} ms")


@lease.command()
@lease_argument
@cluster_options
def revoke(lease_id: int, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """End LEASE now; all keys that go with it are deleted."""
    with reported():
        reply = cluster_of(endpoints, timeout_s).write(Request("DELETE", f"{PATH}/{lease_id}"))
    _show(reply, output, f"lease {lease_id} has ended; {{deleted}} keys went with it")


@lease.command()
@lease_argument
@cluster_options
def get(lease_id: int, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Show how long LEASE lives, and which keys go with it."""
    with reported():
        reply = cluster_of(endpoints, timeout_s).read(Request("GET", f"{PATH}/{lease_id}"))
    found = document_of(reply)
    if output == "json":
        print_json(found)
        return
    click.echo(f"lease {lease_id}: {_left(found)} of {found.get('ttl_ms')} ms left")
    for key in found.get("keys", ()):
        click.echo(printable(item_bytes(key, "key")))


@lease.command("list")
@cluster_options
def list_leases(endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Show all leases."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    with reported():
        cluster = cluster_of(endpoints, timeout_s)
        while after is not None:
            query = (("limit", str(PAGE)), ("after", str(after)))
            page = document_of(cluster.read(Request("GET", PATH, query)))
            found += page.get("leases", ())
            after = page.get("after")
    if output == "json":
        print_json(found)
        return
    rows = [(str(each.get("lease")), f"{each.get('ttl_ms')} ms", _left(each)) for each in found]
    print_rows(COLUMNS, rows, empty="no leases")


def _left(shown: dict[str, Any]) -> str:
    """A node that doesn't lead can only say how much it may be at most."""
    return f"{'' if shown.get('exact') else 'at most '}{shown.get('remaining_ms')} ms"


def _show(reply: Reply, output: str, line: str) -> None:
    done = document_of(reply)
    if output == "json":
        print_json(done)
        return
    try:
        click.echo(line.format(**done))
    except KeyError as error:
        raise Failure(f"{reply.endpoint} did not say {error}: is it a raftkv node?") from error
