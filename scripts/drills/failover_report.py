"""The tables and the plot of scripts/failover, in docs/."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from statistics import mean, median

from document import DOCUMENT, circumstances, write_section
from events import EVENTS
from failover_figures import (
    AFTER_S,
    BEFORE_S,
    BIN_S,
    BINS,
    GOALS,
    Rounds,
    failed,
    gap_ms,
    resumed_ms,
    worst_resumed_ms,
)

PICTURE = DOCUMENT.with_name("failover.png")
_HEAD = (
    "| event | store | rounds | next acknowledged write, ms: median | worst "
    "| longest gap, ms: median | worst | before the event, ms: a write | gap "
    "| acknowledged | failed | slowest acknowledged, ms |"
)


def table(played: Rounds) -> str:
    rows = [_HEAD, "|---|---|" + "---:|" * (_HEAD.count("|") - 3)]
    for (event, store), rounds in played.items():
        cells = [
            EVENTS[event],
            store,
            str(len(rounds)),
            f"**{resumed_ms(rounds):,.0f}**",
            f"{worst_resumed_ms(rounds):,.0f}",
            f"{gap_ms(rounds):,.0f}",
            f"{max(each.gap_ms for each in rounds):,.0f}",
            f"{median(each.before_ms for each in rounds):,.0f}",
            f"{median(each.before_gap_ms for each in rounds):,.0f}",
            f"{sum(each.acked for each in rounds):,}",
            f"{failed(rounds):,}",
            f"{max(each.slowest_ms for each in rounds):,.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def goals(played: Rounds) -> str:
    rows = ["| goal | at most | measured | |", "|---|---:|---:|---|"]
    for goal in GOALS:
        if rounds := played.get((goal.event, "raftkv")):
            met = "met" if goal.met(rounds) else "**missed**"
            rows.append(f"| {goal.name} | {goal.most:g} | {goal.found(rounds):.1f} | {met} |")
    return "\n".join(rows) + "\n"


def write_document(played: Rounds, versions: Mapping[str, str], options: argparse.Namespace) -> None:
    stores = ", ".join(f"{store} {version}" for store, version in versions.items())
    said = circumstances(f"{stores}; {options.rate:g} writes a second, {options.rounds} rounds of each")
    write_section("scripts/failover", [said, goals(played), table(played), f"![]({PICTURE.name})\n"])


def plot(played: Rounds) -> None:
    """Acknowledged writes per bin, the mean of the rounds; a picture for each event."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    events = _unique(event for event, _ in played)
    figure, axes = pyplot.subplots(
        len(events), 1, figsize=(10, 2.4 * len(events)), sharex=True, squeeze=False
    )
    times_s = [i * BIN_S - BEFORE_S for i in range(BINS)]
    for axis, event in zip(axes[:, 0], events, strict=True):
        for (of, store), rounds in played.items():
            if of == event:
                heights = [mean(counts) for counts in zip(*(each.per_bin for each in rounds), strict=True)]
                axis.step(times_s, heights, where="post", label=store, linewidth=1)
        axis.set_title(EVENTS[event], loc="left")
        axis.set_ylabel("per 10 ms")
        axis.set_xlim(-BEFORE_S, AFTER_S)
    axes[0, 0].legend()
    axes[-1, 0].set_xlabel("seconds from the event")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=100)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
