"""``raftkv lock NAME -- COMMAND``: run a command while this, and nobody else, holds a lock."""

from __future__ import annotations

import sys
from typing import Any

import click

from raftkv.cli.guarded import holding_options, run_while_held
from raftkv.cli.holding import Queue
from raftkv.cli.options import cluster_of, output_option, raw_key
from raftkv.cli.queues import show

LOCKS = "/v1/locks"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", callback=raw_key)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--show", "shows", is_flag=True, help="Only say who holds it, and how many wait.")
@holding_options
@output_option
def lock(*, name: bytes, command: tuple[str, ...], shows: bool, output: str, **options: Any) -> None:
    """Wait for the lock NAME, run COMMAND while it is held, and release it.

    COMMAND finds the lock's fencing token, a number that grows with every holder, in RAFTKV_FENCING_TOKEN:
    what it writes to should refuse a smaller one than it has seen. If the lock can't be kept, COMMAND gets a
    SIGTERM while the lock is still surely its own, and a SIGKILL before another may have it. Exits with
    COMMAND's own code (128 + its signal), or 1 where the lock was not had, or was lost; with --show, where
    nobody holds it.
    """
    queue = Queue(LOCKS, "lock", name)
    if shows == bool(command):
        raise click.UsageError("give a COMMAND to run, behind --, or --show")
    if shows:
        show(cluster_of(options["endpoints"], options["timeout_s"]), queue, "holder", output)
    else:
        sys.exit(run_while_held(queue, command, **options))
