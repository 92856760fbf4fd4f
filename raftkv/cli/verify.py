"""``raftkv verify``: judges a recorded history. Exits 0 if it is linearizable, 1 if not or undecided in time.

A file that is no history is a usage error, exit 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from raftkv.cli.options import timeout_option
from raftkv.cli.output import Failure


@click.command()
@click.argument("history", metavar="HISTORY.jsonl", type=click.File("r", encoding="utf-8"))
@click.option(
    "--model",
    type=click.Choice(["kv", "register"]),
    default="kv",
    show_default=True,
    help="kv: raftkv's keys, with conditions and revisions. register: values only, with compare-and-set.",
)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write the picture to this file."
)
@timeout_option("60s", "How long to search; a history undecided by then counts as refused.")
def verify(history: TextIO, model: str, html: Path | None, timeout_s: float) -> None:
    """Is a history linearizable? HISTORY.jsonl holds an operation a line (docs/verify.md); - reads stdin.

    Prints a picture of the operations that don't fit, if it is not.
    """
    from raftkv import verify as checks  # noqa: PLC0415 - no other command needs the checkers
    from raftkv.verify import report  # noqa: PLC0415

    try:
        operations = checks.read_history(history)
        specification = checks.Register() if model == "register" else None
        verdict = checks.check(operations, specification, timeout_s=timeout_s)
    except ValueError as error:  # BadHistory, bytes that aren't UTF-8, or an operation the model doesn't know
        raise click.BadParameter(str(error), param_hint="HISTORY.jsonl") from error
    if verdict:
        click.echo(f"{len(operations):,} operations: linearizable")
        return
    click.echo(report.text(operations, verdict), nl=False)
    if html is not None:
        try:
            html.write_text(report.page(operations, verdict), encoding="utf-8")
        except OSError as error:
            raise Failure(f"{html} can't be written: {error.strerror}") from error
    raise Failure(f"{history.name}: {_CONCLUSIONS[verdict.answer.value]}")


_CONCLUSIONS = {"refused": "not linearizable", "unknown": "not decided, which counts as refused"}
