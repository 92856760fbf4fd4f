"""``raftkv simulate``: whole clusters in virtual time, under faults, checked after every step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import click

from raftkv.cli.output import Failure, on_terminal

if TYPE_CHECKING:
    from raftkv.sim.run import Report
    from raftkv.sim.shrink import Shrunk

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
@click.option(
    "--only", metavar="N,N...", help="Of one seed's faults, these numbers; a failure's report names them."
)
@click.option("--trace", is_flag=True, help="Show the end of every run's trace, not only of one that fails.")
@click.option(
    "--probes", is_flag=True, help="Show how often each rare path was taken; fail if one never was."
)
def simulate(
    *, seeds: int, first: int, jobs: int | None, only: str | None, trace: bool, probes: bool
) -> None:
    """Simulate clusters under faults: real consensus, machine and log; made-up time, network and disks.

    A seed decides everything: the cluster's size, its timing, what fails when, what clients ask. After every
    step the promises of Raft and of the store are checked. A seed that fails is shown with the end of its
    trace, the first also with the few faults that are enough for it, and fails again in the same way:
    `raftkv simulate --seeds 1 --from SEED`. Equal hashes: equal runs, event by event. Exits 1 if any failed.
    """
    from raftkv.sim.probes import PROBES, missed  # noqa: PLC0415 - no other command needs the simulator

    chosen = _numbers(only)
    if chosen is not None and seeds != 1:
        raise click.UsageError("--only takes faults out of one seed: add --seeds 1 --from SEED")
    started = time.perf_counter()
    total = _play(first, seeds, jobs, chosen, trace)
    seconds = time.perf_counter() - started
    done = f"{seeds} seeds, {len(total.failures)} failed; {total.events} events, "
    done += (
        f"{total.virtual_ms / 1000:.0f} virtual s in {seconds:.1f} s ({total.events / seconds:.0f} events/s)"
    )
    click.echo(f"{done}; hash {total.digest.hexdigest()}")
    if probes:
        for name in PROBES:
            click.echo(f"{total.hits[name]:>10}  {name}")
        if never := missed(total.hits):
            raise Failure("never taken: " + ", ".join(never))
    if total.failures:
        shown = ", ".join(map(str, total.failures[:20])) + (", ..." if len(total.failures) > 20 else "")
        raise Failure(f"failing seeds: {shown}")


def _numbers(only: str | None) -> frozenset[int] | None:
    try:
        return None if only is None else frozenset(int(number) for number in only.split(",") if number)
    except ValueError:
        raise click.UsageError(f"--only {only}: numbers with commas between them, as in --only 3,7") from None


@dataclass(slots=True)
class _Total:
    events: int = 0
    virtual_ms: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)
    failures: list[int] = field(default_factory=list)
    digest: blake2b = field(default_factory=partial(blake2b, digest_size=8))  # of the runs' hashes

    def add(self, report: Report) -> None:
        self.events += report.events
        self.virtual_ms += report.virtual_ms
        self.hits.update(report.probes)
        self.digest.update(report.digest.encode())
        if report.failure is not None:
            self.failures.append(report.seed)


def _play(first: int, seeds: int, jobs: int | None, only: frozenset[int] | None, trace: bool) -> _Total:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from raftkv.sim.many import play_all  # noqa: PLC0415
    from raftkv.sim.shrink import shrink  # noqa: PLC0415

    total = _Total()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not on_terminal(), transient=True) as progress:
        say = partial(progress.console.print, markup=False, highlight=False, soft_wrap=True)
        task = progress.add_task("simulating", total=seeds)
        for report in play_all(first, seeds, jobs, only):
            progress.advance(task)
            total.add(report)
            if report.failure is not None:
                progress.update(task, description=f"simulating, {len(total.failures)} failed")
                if len(total.failures) == 1 and only is None:
                    _show_shrunk(shrink(report), say)
            if (report.failure is not None and len(total.failures) <= SHOWN_FAILURES) or trace:
                say(report.story)
                say(f"seed {report.seed} ({report.size} nodes): {report.failure or 'passed'}")
    return total


def _show_shrunk(shrunk: Shrunk, say: Callable[[str], None]) -> None:
    """The first failure with as few faults as it takes."""
    report = shrunk.report
    say(f"seed {report.seed} fails with {len(report.strikes)} of its {shrunk.before} faults too:")
    for line in report.schedule:
        say(f"  {line}")
    say(f"  {report.failure}")
    numbers = ",".join(map(str, report.strikes))
    say(f"  again, with its trace: raftkv simulate --seeds 1 --from {report.seed} --only '{numbers}'\n")
