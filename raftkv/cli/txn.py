"""``txn``, ``batch``: several operations in one request, told as the REST interface is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import click

from raftkv.cli.options import cluster_of, cluster_options, once_option
from raftkv.cli.output import ExitCode, print_json, printable, reported
from raftkv.client import Endpoint
from raftkv.client import kv as calls


@click.command()
@click.argument("file", type=click.File("rb"))
@once_option
@cluster_options
def txn(
    file: BinaryIO, token: str | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Do a transaction: all of it or nothing, at one revision.

    FILE ("-": standard input) is JSON like {"if": [{"key": "k", "value": "old"}], "then": [{"put": {"key":
    "k", "value": "new"}}], "else": [{"get": {"key": "k"}}]}. Exits 1 where "else" was done.
    """
    document = file.read()
    with reported():
        done = calls.submit(cluster_of(endpoints, timeout_s), "txn", document, token=token)
    if output == "json":
        print_json(done)
    else:
        branch = "then" if done.get("succeeded") else "else"
        click.echo(f"{branch} was done (revision {done.get('revision')})")
        _print_results(done)
    if not done.get("succeeded"):
        raise SystemExit(ExitCode.FAILED)


@click.command()
@click.argument("file", type=click.File("rb"))
@once_option
@cluster_options
def batch(
    file: BinaryIO, token: str | None, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Do many operations, each for itself, in order.

    FILE ("-": standard input) is JSON like {"ops": [{"put": {"key": "k", "value": "v"}}, {"delete": {"key":
    "old"}}]}. Exits 1 where one of them failed.
    """
    document = file.read()
    with reported():
        done = calls.submit(cluster_of(endpoints, timeout_s), "batch", document, token=token)
    if output == "json":
        print_json(done)
    else:
        _print_results(done)
        click.echo(f"revision {done.get('revision')}")
    if any("error" in each for each in done.get("results", ())):
        raise SystemExit(ExitCode.FAILED)


def _print_results(done: Mapping[str, Any], indent: str = "") -> None:
    """One line for each operation, and one for each item it gave."""
    for each in done.get("results", ()):
        for name, result in each.items():
            click.echo(indent + _line(name, result))
            for item in _items(result):
                key, value = calls.item_bytes(item, "key"), calls.item_bytes(item, "value")
                click.echo(f"{indent}  {printable(key)}\t{printable(value)}")
            if name == "txn":
                _print_results(result, indent + "  ")


def _line(name: str, result: Mapping[str, Any]) -> str:
    match name:
        case "put":
            what = "created" if result.get("created") else "replaced"
            return f"put: {what} (version {result.get('version')})"
        case "get":
            more = ", and more" if result.get("more") else ""
            return f"get: {len(_items(result))} found{more}"
        case "delete":
            return f"delete: {result.get('deleted')} deleted"
        case "increment":
            return f"increment: now {result.get('value')}"
        case "txn":
            return f"txn: {'then' if result.get('succeeded') else 'else'} was done"
        case _:
            return f"{name}: {result.get('detail', result)}"


def _items(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "items" in result:
        return list(result["items"])
    return [result["item"]] if result.get("item") else []
