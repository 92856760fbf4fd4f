"""Many seeds over all cores. A seed runs in one process, and gives the same there as anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

from raftkv.sim.run import Report, play


def play_all(
    first_seed: int, count: int, jobs: int | None = None, only: frozenset[int] | None = None
) -> Iterator[Report]:
    """Reports of ``count`` seeds from ``first_seed`` on, in order. ``only``: see ``play``."""
    seeds = range(first_seed, first_seed + count)
    jobs = min(jobs or os.cpu_count() or 1, count)
    if jobs <= 1:
        yield from (play(seed, only) for seed in seeds)
        return
    # NB: fresh interpreters: forking a process with threads is a deadlock that waits.
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(partial(play, only=only), seeds, chunksize=max(1, min(16, count // (8 * jobs))))
