"""Take out one safeguard after the other and simulate until a run fails: how many seeds does it take?

A safeguard whose absence isn't noticed is either none, or a hole in the simulator. Exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from multiprocessing import get_context

from raftkv.sim.ablation import ABLATIONS, Catch, hunt


def hunt_number(max_seeds: int, first_seed: int, number: int) -> Catch:
    """By its number, since a broken twin doesn't travel between processes."""
    return hunt(ABLATIONS[number], max_seeds, first_seed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="at most, for each safeguard (default: 1000)")
    parser.add_argument("--from", dest="first", metavar="SEED", type=int, default=0, help="the first seed")
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose name holds TEXT")
    parser.add_argument("--trace", action="store_true", help="show the end of the failing run's trace")
    options = parser.parse_args()
    chosen = [number for number, each in enumerate(ABLATIONS) if options.only in each.name]
    missed = 0
    print(f"{'without the safeguard':<44} {'seeds':>5}  noticed as")
    with get_context("spawn").Pool(min(len(chosen), os.cpu_count() or 1)) as pool:
        for catch in pool.imap(partial(hunt_number, options.seeds, options.first), chosen, chunksize=1):
            report = catch.report
            missed += not catch.is_notice
            noticed = "NOT NOTICED" if report is None else f"seed {report.seed}: {report.failure}"[:140]
            if report is not None and not catch.is_notice:
                noticed = f"THE TWIN ITSELF FAILS: {noticed}"
            print(f"{catch.ablation:<44} {catch.seeds:>5}  {noticed}", flush=True)
            if report is not None and options.trace:
                print(report.story, flush=True)
    print(f"{len(chosen)} safeguards, {missed} whose absence was not noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
