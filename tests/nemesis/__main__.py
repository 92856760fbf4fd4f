"""``scripts/nemesis``: round after round of real nodes under drawn faults, and a table at the end."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.abilities import mount, unmount, why_no_strace
from tests.nemesis.figures import Report
from tests.nemesis.links import Relays, why_no_namespaces
from tests.nemesis.plan import NEEDS, Ability, Fault, Kind, Planner, Window
from tests.nemesis.planted import NAMES
from tests.nemesis.round import BY_CLIENTS, Settings, play
from tests.nemesis.workloads import not_shown

ROUND_S = 120.0
MIN_ROUNDS = 2
# Size and network of one round after the other, where they are left to us.
SIZES = (3, 5, 5, 3)
IN_NAMESPACES = (False, True)
LEASES_MS = (200, 0, 200)  # of a leader that answers reads by its lease; it delays elections
# Planted bugs, and the faults under which each must be found.
SELF_TEST = {
    "reads-without-readindex": (Kind.ISOLATE, Kind.PAUSE),
    "ack-before-fsync": (Kind.KILL_ALL, Kind.KILL_ALL),
    "unknown-as-not-applied": (Kind.ISOLATE, Kind.KILL),
    "reads-without-a-vote": (Kind.ADD,),
    "reads-by-no-lease": (Kind.ISOLATE,),
    "bounds-not-kept": (Kind.ISOLATE, Kind.ISOLATE),
    "sessions-not-awaited": (Kind.ISOLATE, Kind.ISOLATE),
    "tokens-forgotten": (Kind.KILL,),
    "transactions-in-parts": (Kind.KILL,),
    "watches-leave-out": (Kind.KILL,),
    "watches-repeat": (Kind.KILL,),
    "leases-run-ahead": (Kind.KILL,),
    "leases-not-renewed": (Kind.KILL,),
    "leases-without-end": (Kind.KILL,),
    "locks-for-all": (Kind.KILL,),
}
SELF_TEST_NODES = 3
SELF_TEST_FAULT_S = 2.0
SELF_TEST_BEGIN_S = 4.0  # the clients' processes must have started


def say(text: str) -> None:
    print(text, flush=True)


@dataclass(slots=True)
class Machine:
    """What it can do; and what isn't tested here, and why."""

    abilities: frozenset[Ability]
    namespaces: bool
    not_tested: list[str]


def examine(directory: Path, network: str) -> Machine:
    """``network``: what is asked for; namespaces aren't looked at where they aren't wanted."""
    whys: dict[Ability, str] = {}
    if why := why_no_strace(directory, attach=True):
        whys[Ability.STRACE] = why
    if why := mount(directory / "mount", "1m"):
        whys[Ability.MOUNT] = why
    else:
        unmount(directory / "mount")
    not_tested = [
        f"{', '.join(kind for kind, needed in NEEDS.items() if needed is ability)}: {why}"
        for ability, why in whys.items()
    ]
    why = None if network == "relays" else why_no_namespaces()
    if why:
        not_tested.append(f"network namespaces with iptables: {why}")
    able = frozenset({Ability.STRACE, Ability.MOUNT} - whys.keys())
    return Machine(able, network != "relays" and not why, not_tested)


def run(options: argparse.Namespace, root: Path, machine: Machine) -> int:
    """All rounds, and what they come to. Returns the exit code: 1, if something was violated."""
    seconds = 60 * options.minutes
    count = max(MIN_ROUNDS, round(seconds / ROUND_S))
    planner = Planner(options.seed, options.only or frozenset(Kind))
    whole = Report(rounds=0)
    kept = []
    for number in range(count):
        directory = root / f"round-{number + 1}"
        directory.mkdir()
        settings = Settings(
            directory=directory,
            seed=options.seed * 1_000 + number,
            nodes=SIZES[number % len(SIZES)] if options.nodes == "mixed" else int(options.nodes),
            in_namespaces=machine.namespaces and (options.network == "netns" or IN_NAMESPACES[number % 2]),
            abilities=machine.abilities,
            clients=options.clients,
            think_ms=options.think_ms,
            plant=options.plant,
            lease_ms=LEASES_MS[number % len(LEASES_MS)],
        )
        able = settings.abilities | (frozenset() if settings.in_namespaces else Relays.abilities)
        windows = planner.round(settings.nodes, seconds / count, able)
        report = play_round(settings, windows, f"round {number + 1} of {count}")
        whole.add(report)
        if report.violations or options.keep:
            kept.append(directory)
        else:
            shutil.rmtree(directory)
    whole.violations += not_shown(whole.workloads)
    say("\n" + whole.table(machine.not_tested))
    if options.json is not None:
        told = {"seed": options.seed, **whole.document(), "not_tested": machine.not_tested}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    for directory in kept:
        say(f"kept: {directory} (history.jsonl, logs, data; a refused history has its picture.html)")
    say(f"{'FAIL' if whole.violations else 'PASS'} nemesis, seed {options.seed}")
    return 1 if whole.violations else 0


def play_round(settings: Settings, windows: Sequence[Window], title: str) -> Report:
    network = "namespaces and iptables" if settings.in_namespaces else "relays"
    faults = sum(len(window.faults) for window in windows)
    say(f"{title}: {settings.nodes} nodes, {network}, {faults} faults")
    try:
        report = asyncio.run(play(settings, windows, say))
    except AssertionError as error:
        report = Report(violations=[f"the round broke off: {error}"])
    counted = f"{report.operations.total():,} operations, {report.rate:.0f} a second"
    say(f"  {counted}; judged in {report.verify_s:.1f} s: {len(report.violations)} violations")
    for violation in report.violations:
        say(f"  VIOLATION: {violation}")
    return report


def self_test(options: argparse.Namespace, root: Path, machine: Machine) -> int:
    """Every planted bug must be found by what clients were told. Returns the exit code: 1, if one isn't."""
    missed = []
    for plant, kinds in SELF_TEST.items():
        directory = root / plant
        directory.mkdir()
        settings = Settings(directory, options.seed, SELF_TEST_NODES, False, machine.abilities, plant=plant)
        report = play_round(settings, [in_a_row(kinds)], f"planted: {plant}")
        if not any(violation.startswith(BY_CLIENTS) for violation in report.violations):
            missed.append(plant)
        shutil.rmtree(directory)
    say(f"FAIL: not found: {', '.join(missed)}" if missed else f"PASS: all {len(SELF_TEST)} were found")
    return 1 if missed else 0


def in_a_row(kinds: Sequence[Kind]) -> Window:
    """One after the other; each hits the leader, or all."""
    step_s = 2 * SELF_TEST_FAULT_S
    faults = []
    for number, kind in enumerate(kinds):
        ranks = tuple(range(SELF_TEST_NODES)) if kind is Kind.KILL_ALL else (0,)
        faults.append(
            Fault(
                kind,
                SELF_TEST_BEGIN_S + number * step_s,
                SELF_TEST_FAULT_S,
                ranks,
                severity=0.5,
                resets=False,
            )
        )
    return Window(tuple(faults), SELF_TEST_BEGIN_S + len(kinds) * step_s, calm_s=1.0)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nemesis",
        description="Real nodes under kills, pauses, cuts, bad disks, changes of members; histories checked.",
        epilog="Exit 0: nothing was violated. 1: something was; what is needed to look into it is kept.",
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults, in rounds of at most two (2)")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule and the clients (1)")
    parser.add_argument("--nodes", choices=("3", "5", "mixed"), default="mixed", help="(mixed)")
    parser.add_argument(
        "--network",
        choices=("relays", "netns", "mixed"),
        default="mixed",
        help="what cuts the nodes' network: relays in user space; netns: iptables between network namespaces,"
        " as root (mixed: every other round, if this machine can)",
    )
    parser.add_argument(
        "--only", type=Kind, nargs="+", metavar="KIND", help=f"faults of these kinds only: {', '.join(Kind)}"
    )
    parser.add_argument("--clients", type=int, default=24, help="in two processes (24)")
    parser.add_argument("--think-ms", type=float, default=15.0, help="a client's, on average (15)")
    parser.add_argument("--directory", type=Path, help="where data goes; must be a real disk (/var/tmp)")
    parser.add_argument(
        "--keep", action="store_true", help="keep data, logs and histories of sound rounds, too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--plant", choices=NAMES, help="run nodes with this bug: it must be found")
    parser.add_argument("--self-test", action="store_true", help=f"plant {', '.join(SELF_TEST)} in turn")
    options = parser.parse_args(given)
    if options.minutes <= 0 or options.clients < 1:
        parser.error("--minutes and --clients must be positive")
    return options


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    parent = options.directory or next((p for p in (Path("/var/tmp"),) if p.is_dir()), None)
    root = Path(tempfile.mkdtemp(prefix="raftkv-nemesis-", dir=parent))
    try:
        machine = examine(root, options.network)
        for line in machine.not_tested:
            say(f"NOT TESTED HERE: {line}")
        if options.network == "netns" and not machine.namespaces:
            return 2
        return (self_test if options.self_test else run)(options, root, machine)
    except KeyboardInterrupt:
        say(f"interrupted; what there is of the round is in {root}")
        return 130
    finally:
        if not any(path.name.startswith("round-") for path in root.iterdir()):
            shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
