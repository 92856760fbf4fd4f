"""``raftkv members`` and ``raftkv member ...``: who belongs to the cluster, and changes of that."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from raftkv.cli.options import cluster_of, cluster_options
from raftkv.cli.output import Failure, UnknownOutcome, on_terminal, plain_columns, print_json, reported
from raftkv.client import Endpoint, OutcomeUnknown, Reply, Request

PATH = "/v1/cluster/members"
COLUMNS = ("id", "address", "role", "match", "lag", "healthy", "note")

force_option = click.option(
    "--force", is_flag=True, help="Even though too few voters would be heard from to decide anything."
)


@click.command()
@cluster_options
def members(endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    """Show the members as the first node that answers sees them.

    MATCH is how far a member's log is known to be the leader's, LAG how many committed entries it lacks.
    """
    with reported():
        reply = cluster_of(endpoints, timeout_s).read(Request("GET", PATH))
    _show(reply, output, "")


@click.group()
def member() -> None:
    """Change who belongs to the cluster, one change at a time."""


@member.command()
@click.argument("node")
@click.argument("address", metavar="HOST:PORT")
@click.option("--learner", is_flag=True, help="Let it learn only, until it is promoted by command.")
@force_option
@cluster_options
def add(node: str, address: str, learner: bool, force: bool, **rest: Any) -> None:
    """Add NODE, whose peer port is found at HOST:PORT.

    It learns first, and votes by itself once it has caught up. Start it before or after with raftkv serve
    --join.
    """
    body = {"id": node, "address": address, "promote": not learner, "force": force}
    what = f"{node} is a member; it {'learns' if learner else 'votes once it has caught up'}"
    _change(Request("POST", PATH, (), json.dumps(body).encode()), what, **rest)


@member.command()
@click.argument("node")
@force_option
@cluster_options
def promote(node: str, force: bool, **rest: Any) -> None:
    """Let NODE, a learner, vote. With --force also if it hasn't caught up yet."""
    _change(Request("POST", f"{_path(node)}/promote", _forced(force), b""), f"{node} votes", **rest)


@member.command()
@click.argument("node")
@force_option
@cluster_options
def remove(node: str, force: bool, **rest: Any) -> None:
    """Remove NODE. Its process ends by itself when it has heard of it."""
    _change(Request("DELETE", _path(node), _forced(force), None), f"{node} is no member", **rest)


@member.command()
@click.argument("node")
@click.argument("new")
@click.argument("address", metavar="HOST:PORT")
@force_option
@cluster_options
def replace(node: str, new: str, address: str, force: bool, **rest: Any) -> None:
    """Put NEW, whose peer port is found at HOST:PORT, in the place of NODE, which may be dead.

    NEW learns first; once it has caught up it votes, and NODE is removed by the same change.
    """
    body = {"id": new, "address": address, "promote": True, "replaces": node, "force": force}
    what = f"{new} is a member; once it has caught up it votes in the place of {node}"
    _change(Request("POST", PATH, (), json.dumps(body).encode()), what, **rest)


@member.command()
@click.argument("node")
@click.argument("address", metavar="HOST:PORT")
@cluster_options
def move(node: str, address: str, **rest: Any) -> None:
    """Say that NODE's peer port is found at HOST:PORT from now on."""
    body = json.dumps({"address": address}).encode()
    _change(Request("PUT", _path(node), (), body), f"{node} is found at {address}", **rest)


def _path(node: str) -> str:
    return f"{PATH}/{quote(node, safe='')}"


def _forced(force: bool) -> tuple[tuple[str, str], ...]:
    return (("force", "true"),) if force else ()


def _change(
    request: Request, what: str, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    try:
        with reported():
            reply = cluster_of(endpoints, timeout_s).write(request)
    except UnknownOutcome as failure:
        cause = failure.__cause__
        reason = cause.reason if isinstance(cause, OutcomeUnknown) else str(failure)
        raise UnknownOutcome(
            f"{reason} (it may yet happen: see raftkv members; asking again is safe)"
        ) from cause
    _show(reply, output, what)


def _show(reply: Reply, output: str, what: str) -> None:
    try:
        document = json.loads(reply.body)
        rows = [_row(each) for each in document["members"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(f"{reply.endpoint} did not say who the members are: is it a raftkv node?") from error
    if output == "json":
        print_json(document)
        return
    if what:
        click.echo(what)
    if on_terminal():
        _draw(rows)
    elif rows or not what:
        click.echo(plain_columns([[name.upper() for name in COLUMNS], *rows]))
    if document.get("joint"):
        click.echo("a change of voters is under way")


def _row(each: dict[str, Any]) -> list[str]:
    note = ""
    if each["role"] == "learner":
        note = "votes once it has caught up" if each.get("promote") else "learns only"
        if each.get("replaces"):
            note = f"replaces {each['replaces']} once it has caught up"
    numbers = ["" if each[name] is None else str(each[name]) for name in ("match_index", "lag")]
    return [each["id"], each["address"], each["role"], *numbers, "yes" if each["healthy"] else "no", note]


def _draw(rows: list[list[str]]) -> None:
    # rich takes a tenth of a second to import.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(*(name.upper() for name in COLUMNS))
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
