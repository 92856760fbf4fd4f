"""``raftkv wal``: look into a node's write-ahead log. Reads only; the node may be running.

Damage is exit code 1, in the words in which the node itself would refuse to start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from raftkv.cli.output import Failure, print_json, printable, text_or_base64
from raftkv.client.kv import item_bytes

MAX_SHOWN_COMMANDS = 4
DIRECTORY = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


def output_option(help_text: str) -> Callable[[Any], Any]:
    return click.option(
        "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help=help_text
    )


@click.group()
def wal() -> None:
    """Look into a node's write-ahead log: DIR is its --data-dir. Changes nothing."""


@wal.command()
@DIRECTORY
@output_option("table: a line a record. json: an object a line, with the commands in full.")
def dump(directory: Path, output: str) -> None:
    """Show every record of every committed batch, oldest first, up to the first damage. What snapshots
    cover may be gone.

    On a running node's directory the newest batch may be missing.
    """
    from raftkv.storage import inspect  # noqa: PLC0415 - no other command needs the storage

    empty, file = True, ""
    with _refusals():
        for line in inspect.dump(directory):
            empty = False
            if output == "json":
                print_json(_as_json(line))
                continue
            if line.file != file:
                file = line.file
                click.secho(file, bold=True)
            place = f"{line.offset:>10}  {line.size_bytes:>7}  batch {line.batch:<6}"
            group = f" group={line.group}" if line.group else ""
            click.echo(f"{place}  {line.type.name:<10}{group} {_in_words(line.detail)}")
    if empty:
        raise _no_log(directory)


@wal.command()
@DIRECTORY
@output_option("table: lines for people. json: one object.")
def verify(directory: Path, output: str) -> None:
    """Read the whole log and the snapshots as a start would, and say whether the node would start.

    Exits 1 if not. A damaged snapshot is named, but no reason not to start if an older one will do.
    """
    from raftkv.storage import inspect  # noqa: PLC0415

    with _refusals():
        report = inspect.verify(directory)
    if report.segments == 0 and report.damage is None:
        raise _no_log(directory)
    document = _report(report)
    if output == "json":
        print_json(document)
    else:
        _print_report(document)
    if report.damage is not None:
        raise Failure(f"the node would not start. {report.damage}")


def _report(report: Any) -> dict[str, Any]:
    owner = report.owner
    used = report.used_snapshot
    return {
        "node": owner.node_id if owner else None,
        "cluster_id": owner.cluster_id if owner else None,
        "incarnation": report.incarnation,
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "total_bytes": report.total_bytes,
        "groups": [
            {
                "group": group.group,
                "term": group.hard_state.current_term,
                "voted_for": group.hard_state.voted_for,
                "begins_after_index": group.boundary.index,
                "begins_after_term": group.boundary.term,
                "entries": group.entries,
                "first_index": group.first_index,
                "last_index": group.last_index,
                "last_term": group.last_term,
            }
            for group in report.groups
        ],
        "snapshots": [
            {
                "file": snapshot.file,
                "index": snapshot.meta.index if snapshot.meta else None,
                "term": snapshot.meta.term if snapshot.meta else None,
                "time_ms": snapshot.meta.time_ms if snapshot.meta else None,
                "chunks": snapshot.chunks,
                "size_bytes": snapshot.size_bytes,
                "used": used is not None and snapshot.meta == used,
                "damage": snapshot.damage,
            }
            for snapshot in report.snapshots
        ],
        "torn_tail_bytes": report.torn_tail_bytes,
        "torn_tail": report.torn_tail,
        "damage": report.damage,
    }


def _print_report(document: Mapping[str, Any]) -> None:
    click.echo(f"node {document['node']}, cluster {document['cluster_id']}, start {document['incarnation']}")
    sizes = (
        f"{document['batches']:,} batches, {document['records']:,} records, {document['total_bytes']:,} bytes"
    )
    click.echo(f"{document['segments']:,} segments, {sizes}")
    for group in document["groups"]:
        entries = f"{group['entries']:,} entries"
        if group["entries"]:
            entries += (
                f", {group['first_index']} to {group['last_index']}, the last of term {group['last_term']}"
            )
        if group["begins_after_index"]:
            entries += f", after {group['begins_after_index']} of term {group['begins_after_term']}"
        vote = f"voted for {group['voted_for']}" if group["voted_for"] else "no vote"
        click.echo(f"group {group['group']}: {entries}; in term {group['term']}, {vote}")
    for snapshot in document["snapshots"]:
        if snapshot["damage"] is not None:
            click.secho(f"a snapshot that can't be used: {snapshot['damage']}", fg="yellow")
            continue
        size = f"{snapshot['chunks']:,} chunks, {snapshot['size_bytes']:,} bytes"
        use = "; a start restores it" if snapshot["used"] else ""
        click.echo(f"snapshot up to {snapshot['index']} of term {snapshot['term']}: {size}{use}")
    if document["torn_tail"]:
        tail = f"{document['torn_tail_bytes']:,} bytes at the end were never acknowledged"
        click.echo(f"{tail}; the next start drops them: {document['torn_tail']}")
    if document["damage"] is None:
        click.secho("sound", fg="green")


def _as_json(line: Any) -> dict[str, Any]:
    detail = {key: value for key, value in line.detail.items() if key != "data"}
    place = {"file": line.file, "offset": line.offset, "size_bytes": line.size_bytes, "batch": line.batch}
    shown = {**place, "group": line.group, "type": line.type.name, **detail}
    data = line.detail.get("data")
    if isinstance(data, bytes):
        shown["data_bytes"] = len(data)
    if line.detail.get("kind") == "CONFIG":
        shown["membership"] = _membership(data)
    elif isinstance(data, bytes):
        shown["from"], shown["commands"] = _batch(data)
    return shown


def _in_words(detail: Mapping[str, Any]) -> str:
    words = [f"{key}={value}" for key, value in detail.items() if key != "data" and value is not None]
    data = detail.get("data")
    if not data:
        return " ".join(words)
    if detail.get("kind") == "CONFIG" and (membership := _membership(data)):
        return " ".join([*words, "; ".join(membership)])
    sender, commands = _batch(data)
    if commands is None:
        return " ".join([*words, f"data={len(data)}B (in a form this version can't read)"])
    shown = "; ".join(map(_command_in_words, commands[:MAX_SHOWN_COMMANDS]))
    more = f"; and {len(commands) - MAX_SHOWN_COMMANDS} more" if len(commands) > MAX_SHOWN_COMMANDS else ""
    return " ".join([*words, f"from={sender}:", shown + more])


def _membership(data: bytes) -> list[str] | None:
    """Who belongs to the group, a fact a line, as the entry has it; None if it can't be read."""
    from raftkv.consensus.membership import decode_membership, encode_membership  # noqa: PLC0415

    try:
        return encode_membership(decode_membership(data)).decode().splitlines()[1:]
    except ValueError:
        return None


def _batch(data: bytes) -> tuple[str | None, list[dict[str, Any]] | None]:
    """Who made the batch (node.incarnation.sequence), and its commands; (None, None) if it can't be read."""
    if not data:
        return None, []
    from raftkv.kv.session import decode_batch  # noqa: PLC0415

    try:
        batch, commands = decode_batch(data)
    except ValueError:
        return None, None
    return f"{batch.node}.{batch.incarnation}.{batch.seq}", [_command(command) for command in commands]


def _command(command: Any) -> dict[str, Any]:
    """One command as JSON, exactly: ``key`` or ``key_base64``, ``value`` or ``value_base64``."""
    from raftkv.kv.commands import ConditionKind, Opcode  # noqa: PLC0415

    try:
        match command:
            case [Opcode.PUT, bytes() as key, bytes() as value, _, condition]:
                shown = {"op": "put", **text_or_base64("key", key), **text_or_base64("value", value)}
            case [Opcode.DELETE, bytes() as key, condition]:
                shown = {"op": "delete", **text_or_base64("key", key)}
            case _:
                return _unknown(command)
        if condition is None:
            return shown
        kind, revisions = condition
        if not all(type(revision) is int for revision in revisions):
            return _unknown(command)
        return {**shown, "condition": ConditionKind(kind).name.lower(), "revisions": list(revisions)}
    except (ValueError, TypeError):  # a condition of a newer version
        return _unknown(command)


def _unknown(command: Any) -> dict[str, Any]:
    try:
        shown = repr(command)
    except RecursionError:
        shown = "nested too deeply to be shown"
    return {"op": "unknown", "command": shown}


def _command_in_words(command: Mapping[str, Any]) -> str:
    words = [command["op"], printable(item_bytes(command, "key"))]
    if command["op"] == "put":
        words.append(f"({len(item_bytes(command, 'value'))} B)")
    if "condition" in command:
        revisions = ",".join(map(str, command["revisions"]))
        words.append(f"if {command['condition']} {revisions}".rstrip())
    return " ".join(words)


def _no_log(directory: Path) -> Failure:
    inner = sorted(path.parent.name for path in directory.glob("*/wal-*.log"))
    hint = f": did you mean {directory / inner[0]}?" if inner else ": give a node's --data-dir"
    return Failure(f"there is no log in {directory}{hint}")


@contextmanager
def _refusals() -> Iterator[None]:
    from raftkv.errors import StartError  # noqa: PLC0415

    try:
        yield
    except StartError as error:
        raise Failure(str(error)) from error
