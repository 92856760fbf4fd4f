"""The tables and the plot of scripts/bench --against, in docs/."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from cases import CONNECTIONS, GOALS, Case, Figures
from document import DOCUMENT, circumstances, write_section
from stores import STAGES

PICTURE = DOCUMENT.with_name("benchmarks.png")
_RIVALS = {
    "etcd": "etcd gateway",
    "grpc": "etcd gRPC",
    "three": "three nodes",
    "tenth": "a tenth of the keys",
}
_BARS = (("raftkv", "raftkv"), ("etcd", "etcd, HTTP"), ("grpc", "etcd, gRPC"))


def tables(figures: Figures, cases: Sequence[Case]) -> str:
    """One of the stores, one of raftkv by itself; without what there is no case of."""
    stages = (["stores"], ["nodes", "keys"])
    parts = [[case for case in cases if case.stage in stage] for stage in stages]
    return "\n".join(table(figures, part) for part in parts if part)


def table(figures: Figures, cases: Sequence[Case]) -> str:
    rivals = [name for name in _RIVALS if any(name in case.contenders for case in cases)]
    head = ["case", "raftkv/s", "p50, p99 ms"]
    for rival in rivals:
        head += [f"{_RIVALS[rival]}/s", "p50, p99 ms", "ratio"]
    rows = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for case in cases:
        cells = [case.name, *_measured(figures, case, "raftkv")]
        for rival in rivals:
            ratio = figures.ratio(case, rival)
            cells += [*_measured(figures, case, rival), "" if ratio is None else f"**{ratio:.2f}**"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _measured(figures: Figures, case: Case, contender: str) -> tuple[str, str]:
    run = figures.middle(case, contender)
    return ("", "") if run is None else (f"{run.per_second:,.0f}", f"{run.p50_ms:.2f}, {run.p99_ms:.2f}")


def goals(figures: Figures) -> str:
    rows = ["| goal | at least | measured | |", "|---|---:|---:|---|"]
    for goal in GOALS:
        found = goal.measure(figures, goal.case)
        if found is not None:
            met = "met" if found >= goal.least else "**missed**"
            rows.append(f"| {goal.name} | {goal.least:,g} | {found:,.2f} | {met} |")
    return "\n".join(rows) + "\n"


def floors_text(figures: Figures) -> str:
    found = figures.floors
    bare = [figures.middle(case, "bare") for case, contender in figures.runs if contender == "bare"]
    handler = "".join(
        f", {run.per_second:,.0f} requests/s at 64 connections" for run in bare if run is not None
    )
    return (
        f"Floors in the same run: fdatasync {found.fdatasync_ms:.3f} ms; WebSocket round trip "
        f"{found.websocket_ms:.3f} ms;\n"
        f"a bare aiohttp handler {found.http_ms:.3f} ms on one connection{handler}.\n"
    )


def write_document(
    figures: Figures, cases: Sequence[Case], versions: Mapping[str, str], options: argparse.Namespace
) -> None:
    said = circumstances(
        f"{', '.join(' '.join(each) for each in versions.items())}; {options.repetitions} turns of "
        f"{options.seconds} s each, {options.keys:,} keys ({_growths(options.keys)} where they grow)"
    )
    parts = [said, floors_text(figures), goals(figures), tables(figures, cases), f"![]({PICTURE.name})\n"]
    write_section("scripts/bench", parts)


def _growths(keys: int) -> str:
    return " and ".join(f"{keys * entry.growth:,}" for entry in STAGES["keys"].values())


def plot(figures: Figures, cases: Sequence[Case]) -> None:
    """Requests a second by connections to the leader; a picture for each of PUT and linearizable GET."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, operation in zip(axes, ("put", "get"), strict=True):
        shown = [
            case
            for case in cases
            if (case.operation, case.target, case.value_bytes, case.stage)
            == (operation, "leader", 64, "stores")
            and case.connections in CONNECTIONS
        ]
        for i, (contender, label) in enumerate(_BARS):
            runs = [figures.middle(case, contender) for case in shown]
            places = [j + 0.27 * (i - 1) for j, run in enumerate(runs) if run is not None]
            axis.bar(places, [run.per_second for run in runs if run is not None], 0.25, label=label)
        axis.set_xticks(range(len(shown)), [str(case.connections) for case in shown])
        axis.set_xlabel("connections to the leader")
        axis.set_title("PUT" if operation == "put" else "linearizable GET")
    axes[0].set_ylabel("requests a second")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=100)
