"""``raftkv simulate``: whole clusters in virtual time, under faults, checked after every step."""

from __future__ import annotations

import time
from collections import Counter

import click

from raftkv.cli.output import Failure, on_terminal

SHOWN_FAILURES = 5


@click.command()
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many clusters to simulate.",
)
@click.option(
    "--from", "first", metavar="SEED", type=int, default=0, show_default=True, help="The first seed."
)
@click.option("--jobs", type=click.IntRange(min=1), help="How many at once. Default: one a core.")
@click.option("--trace", is_flag=True, help="Show the end of every run's trace, not only of one that fails.")
@click.option(
    "--probes", is_flag=True, help="Show how often each rare path was taken; fail if one never was."
)
def simulate(seeds: int, first: int, jobs: int | None, trace: bool, probes: bool) -> None:
    """Simulate clusters under faults: real consensus, machine and log; made-up time, network and disks.

    A seed decides everything: the cluster's size, its timing, what fails when, what clients ask. After every
    step the promises of Raft and of the store are checked. A seed that fails is shown with the end of its
    trace, and fails again in the same way: `raftkv simulate --seeds 1 --from SEED`. Exits 1 if any failed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from raftkv.sim.many import play_all  # noqa: PLC0415 - no other command needs the simulator
    from raftkv.sim.probes import PROBES, missed  # noqa: PLC0415

    started, events, virtual_ms = time.perf_counter(), 0, 0.0
    hits: Counter[str] = Counter()
    failures: list[int] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not on_terminal(), transient=True) as progress:
        task = progress.add_task("simulating", total=seeds)
        for report in play_all(first, seeds, jobs):
            progress.advance(task)
            events += report.events
            virtual_ms += report.virtual_ms
            hits.update(report.probes)
            if report.failure is not None:
                failures.append(report.seed)
                progress.update(task, description=f"simulating, {len(failures)} failed")
            if (report.failure is not None and len(failures) <= SHOWN_FAILURES) or trace:
                progress.console.print(report.story, markup=False, highlight=False, soft_wrap=True)
                line = f"seed {report.seed} ({report.size} nodes): {report.failure or 'passed'}"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    seconds = time.perf_counter() - started
    done = f"{seeds} seeds, {len(failures)} failed; {events} events, {virtual_ms / 1000:.0f} virtual s"
    click.echo(f"{done} in {seconds:.1f} s ({events / seconds:.0f} events/s)")
    if probes:
        for name in PROBES:
            click.echo(f"{hits[name]:>10}  {name}")
        if never := missed(hits):
            raise Failure("never taken: " + ", ".join(never))
    if failures:
        shown = ", ".join(map(str, failures[:20])) + (", ..." if len(failures) > 20 else "")
        raise Failure(f"failing seeds: {shown}")
