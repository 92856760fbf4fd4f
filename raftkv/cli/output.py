"""How commands speak: exit codes, errors, JSON, plain columns, and bytes made fit for a line.

rich is imported only where a table is drawn.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import click

from raftkv.client import ClientError, NoQuorum, OutcomeUnknown, Reply

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class ExitCode(IntEnum):
    """What a script may branch on."""

    DONE = 0
    FAILED = 1  # refused, or failed: it was not done
    USAGE = 2
    UNKNOWN = 3  # a write that may have happened
    NO_QUORUM = 4  # nodes answer, but no majority does


class Failure(click.ClickException):
    """Ends the command with one line on stderr, and exit code 1."""

    exit_code = ExitCode.FAILED


class UnknownOutcome(Failure):
    exit_code = ExitCode.UNKNOWN


class NoMajority(Failure):
    exit_code = ExitCode.NO_QUORUM


@contextmanager
def reported() -> Iterator[None]:
    """Turn what the client raises into exit codes."""
    try:
        yield
    except OutcomeUnknown as error:
        raise UnknownOutcome(str(error)) from error
    except NoQuorum as error:
        raise NoMajority(str(error)) from error
    except ClientError as error:
        raise Failure(str(error)) from error


def on_terminal() -> bool:
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False))


def document_of(reply: Reply) -> dict[str, Any]:
    """The JSON object of an answer. Raises ``Failure``."""
    try:
        found = json.loads(reply.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Failure(f"{reply.endpoint} did not answer with a JSON object: is it a raftkv node?")
    return found


def printable(raw: bytes) -> str:
    """Bytes as one line of text that can't be mistaken for other bytes, nor command a terminal.

    Control characters and bytes that aren't UTF-8 become ``\\n``, ``\\x1b``...; a backslash is doubled.
    """
    shown = []
    for character in raw.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if character in ESCAPES:
            shown.append(ESCAPES[character])
        elif 0xDC80 <= code <= 0xDCFF:
            shown.append(f"\\x{code - 0xDC00:02x}")
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append("".join(f"\\x{byte:02x}" for byte in character.encode()))
    return "".join(shown)


def text_or_base64(name: str, raw: bytes) -> dict[str, str]:
    """``{name: text}``, or ``{name_base64: ...}`` where it isn't UTF-8: as the REST interface does."""
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(raw).decode()}


def plain_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as left-aligned columns two spaces apart, one line each; an empty cell is shown as "-"."""
    cells = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def print_rows(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    empty: str,
    styles: Mapping[str, str] | None = None,
) -> None:
    """A table on a terminal, ``empty`` where it has no rows; else plain columns. ``styles``: rich's, by
    column.
    """
    if not on_terminal():
        click.echo(plain_columns([[name.upper() for name in columns], *rows]))
        return
    from rich.console import Console  # noqa: PLC0415 - only where it is needed: it is slow to import
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(*(name.upper() for name in columns), box=None, pad_edge=False, header_style="bold")
    for row in rows:
        cells = zip(columns, row, strict=True)
        grid.add_row(
            *(Text(cell, style=(styles or {}).get(name, ""), overflow="fold") for name, cell in cells)
        )
    Console(highlight=False).print(grid if rows else empty)
