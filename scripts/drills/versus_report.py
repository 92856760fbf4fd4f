"""The tables and the plot of scripts/bench --against, in docs/."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from cases import CONNECTIONS, GOALS, Case, Figures
from document import DOCUMENT, circumstances, write_section

PICTURE = DOCUMENT.with_name("benchmarks.png")
_HEAD = (
    "| case | raftkv/s | p50, p99 ms | etcd gateway/s | p50, p99 ms | ratio "
    "| etcd gRPC/s | p50, p99 ms | ratio |"
)
_BARS = (("raftkv", "raftkv"), ("etcd", "etcd, HTTP"), ("grpc", "etcd, gRPC"))


def table(figures: Figures, cases: Sequence[Case]) -> str:
    rows = [_HEAD, "|---|" + "---:|" * (_HEAD.count("|") - 2)]
    for case in cases:
        cells = [case.name, *_measured(figures, case, "raftkv")]
        for contender in ("etcd", "grpc"):
            ratio = figures.ratio(case, contender)
            cells += [*_measured(figures, case, contender), "" if ratio is None else f"**{ratio:.2f}**"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _measured(figures: Figures, case: Case, contender: str) -> tuple[str, str]:
    run = figures.middle(case, contender)
    return ("", "") if run is None else (f"{run.per_second:,.0f}", f"{run.p50_ms:.2f}, {run.p99_ms:.2f}")


def goals(figures: Figures) -> str:
    rows = ["| goal | at least | measured | |", "|---|---:|---:|---|"]
    for goal in GOALS:
        found = goal.found(figures)
        if found is not None:
            met = "met" if found >= goal.least else "**missed**"
            rows.append(f"| {goal.name} | {goal.least:,g} | {found:,.2f} | {met} |")
    return "\n".join(rows) + "\n"


def floors(figures: Figures) -> str:
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
        f"raftkv {versions['raftkv']}, etcd {versions['etcd']}; {options.repetitions} turns of "
        f"{options.seconds} s each, {options.keys:,} keys"
    )
    parts = [said, floors(figures), goals(figures), table(figures, cases), f"![]({PICTURE.name})\n"]
    write_section("scripts/bench", parts)


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
            if (case.operation, case.target, case.value_bytes) == (operation, "leader", 64)
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
