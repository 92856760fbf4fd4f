"""``raftkv status``: every node's own view of the cluster, once, or live while it breaks (``--watch``)."""

from __future__ import annotations

import queue
import signal
import time
from types import FrameType
from typing import Any

import click

from raftkv.cli.observation import Observer, leader_of
from raftkv.cli.options import endpoints_option, output_option, timeout_option
from raftkv.cli.output import Failure, NoMajority, on_terminal, print_json
from raftkv.cli.polling import Poller, advertised, look_at_all
from raftkv.client import Endpoint

INTERVAL_S = 0.25
REFRESHES_PER_S = 8
SHOWN_EVENTS = 10


@click.command()
@click.option("--watch", is_flag=True, help="Keep looking, 4 times a second; Ctrl-C ends it.")
@click.option("--discover", is_flag=True, help="Ask the other members too, at the URLs they advertise.")
@endpoints_option
@timeout_option("1s", "How long a node may take before it counts as unreachable.")
@output_option
def status(
    watch: bool, discover: bool, endpoints: tuple[Endpoint, ...], timeout_s: float, output: str
) -> None:
    """Show each node's own view: role, term, indexes, links.

    LAG is how many entries a node has not applied of those the leader knows to be committed. In a pipe,
    --watch prints what happens, a line each; as JSON a list of all nodes at every look. Without --watch it
    exits 1 when no node answers, 4 when none of them leads.
    """
    if discover:
        endpoints = tuple(dict.fromkeys((*endpoints, *advertised(endpoints, timeout_s))))
    if not watch:
        _once(endpoints, timeout_s, output)
        return
    signal.signal(signal.SIGTERM, _interrupt)  # leave the terminal as it was, as on Ctrl-C
    poller = Poller(timeout_s, INTERVAL_S)
    observer = Observer([str(endpoint) for endpoint in endpoints], time.monotonic())
    for endpoint in endpoints:
        poller.watch(endpoint)
    try:
        if output == "table" and on_terminal():
            _watch_table(poller, observer)
        else:
            _watch_lines(poller, observer, output)
    except KeyboardInterrupt:
        pass
    finally:
        poller.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _once(endpoints: tuple[Endpoint, ...], timeout_s: float, output: str) -> None:
    observer = Observer([str(endpoint) for endpoint in endpoints], time.monotonic())
    for look in look_at_all(endpoints, timeout_s):
        if look.report is None:
            observer.lost(str(look.endpoint), look.reason, time.monotonic())
        else:
            observer.answered(str(look.endpoint), look.report, time.monotonic())
    if output == "json":
        print_json(_document(observer))
    else:
        _print(observer)
    if all(view.report is None for view in observer.views):
        raise Failure("no node answered. Start the cluster, or name another with --endpoints")
    if leader_of(observer.views) is None:
        raise NoMajority("no node that answers leads: there is no majority, or an election")


def _print(observer: Observer) -> None:
    # rich takes a tenth of a second to import: JSON and usage errors need not pay for it.
    from raftkv.cli import status_table  # noqa: PLC0415

    now_s = time.monotonic()
    if not on_terminal():
        click.echo(status_table.plain_table(observer.views, now_s))
        return
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(status_table.rich_table(observer.views, now_s, console.width))
    console.print(status_table.summary(observer.views))


def _watch_table(poller: Poller, observer: Observer) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from raftkv.cli.status_table import live_view  # noqa: PLC0415

    console = Console(highlight=False)

    def show() -> Any:
        # On a small screen the table matters more than the events.
        room = max(0, console.height - len(observer.views) - 5)
        return live_view(
            observer.views, observer.events, time.monotonic(), console.width, min(SHOWN_EVENTS, room)
        )

    with Live(show(), console=console, auto_refresh=False) as live:
        while True:
            _take_looks(poller, observer, 1 / REFRESHES_PER_S)
            live.update(show(), refresh=True)


def _watch_lines(poller: Poller, observer: Observer, output: str) -> None:
    from raftkv.cli.status_table import event_text  # noqa: PLC0415

    while True:
        events = _take_looks(poller, observer, INTERVAL_S)
        if output == "json":
            if observer.complete:
                print_json(_document(observer))
        else:
            for event in events:
                click.echo(event_text(event, time.monotonic()))


def _take_looks(poller: Poller, observer: Observer, wait_s: float) -> list[Any]:
    """Give the observer all that is seen within ``wait_s``; what happened."""
    deadline, events = time.monotonic() + wait_s, []
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            look = poller.looks.get(timeout=left_s)
        except queue.Empty:
            break
        if look.report is None:
            events += observer.lost(str(look.endpoint), look.reason, time.monotonic())
        else:
            events += observer.answered(str(look.endpoint), look.report, time.monotonic())
    return events


def _document(observer: Observer) -> list[dict[str, Any]]:
    return [
        {"endpoint": view.endpoint, "reachable": True, **view.report}
        if view.report is not None
        else {"endpoint": view.endpoint, "reachable": False, "node": view.node, "error": view.lost}
        for view in observer.views
    ]
