"""``raftkv local``: a whole cluster on this machine, to try things and to break them."""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from raftkv.cli.observation import NodeView, leader_of
from raftkv.cli.options import DEFAULT_ENDPOINTS
from raftkv.cli.output import Failure, plain_columns
from raftkv.cli.polling import look_at_all
from raftkv.cli.processes import Child, end_in_words, occupied_ports, plan, stop
from raftkv.cli.settings import CONFIG_META

START_S = 30.0
STOP_S = 10.0
LOOK_EVERY_S = 0.1
MAX_NODES = 9
MAX_PORT = 65_535 - 1_000 - MAX_NODES


@click.command()
@click.option("--nodes", type=click.IntRange(1, MAX_NODES), default=3, show_default=True, help="How many.")
@click.option(
    "--port",
    type=click.IntRange(1, MAX_PORT),
    default=8001,
    show_default=True,
    help="Client port of the first node; the next ones follow, peers are 1000 above.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default="raftkv-data",
    show_default=True,
    help="Keeps the nodes' data, and is used again by the next run.",
)
@click.option("--logs", is_flag=True, help="Show the nodes' logs on stderr, not in DIR/n1.log ...")
@click.pass_context
def local(ctx: click.Context, nodes: int, port: int, data_dir: Path, logs: bool) -> None:
    """Run a cluster of separate processes on this machine until Ctrl-C.

    Node n1 has its data in DIR/n1 and its log in DIR/n1.log. A node that dies is reported, and not started
    again: kill one and look at `raftkv status --watch`. If this command itself is killed by kill -9, the
    nodes live on.
    """
    _refuse_another_size(data_dir, nodes)
    children = plan(nodes, port, data_dir, _config_of(ctx))
    if taken := occupied_ports(children):
        ports = ", ".join(map(str, taken))
        raise Failure(f"in use: port {ports}. Does a cluster run already? Stop it, or choose another --port")
    with _stop_signals() as stopping:
        try:
            for child in children:
                child.directory.mkdir(parents=True, exist_ok=True)  # all: they say how many the cluster has
            for child in children:
                child.start(logs_here=logs)
            leader = _await_leader(children, stopping)
            if leader is not None:
                _introduce(children, leader, data_dir, logs)
                _report_deaths(children, stopping)
        except OSError as error:
            raise Failure(f"cannot start the nodes: {error}") from error
        finally:
            # From here on a second signal means: at once.
            stopping.clear()
            killed = stop(children, STOP_S, stopping)
            if killed:
                click.echo(f"killed, since they did not stop: {', '.join(killed)}", err=True)
    click.echo(f"stopped; the data is in {data_dir}", err=True)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """SIGINT, SIGTERM and SIGHUP set the event instead of ending us: the children must be stopped first."""
    stopping = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield stopping
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _await_leader(children: Sequence[Child], stopping: threading.Event) -> NodeView | None:
    """The leader's view, once there is one and every node answers; None when we are to stop."""
    deadline = time.monotonic() + START_S
    while not stopping.wait(LOOK_EVERY_S):
        for child in children:
            if (status := child.exit_status) is not None:
                raise Failure(_death(child, status))
        looks = look_at_all([child.endpoint for child in children], 1.0)
        views = [NodeView(str(look.endpoint), None, look.report, look.reason, 0.0) for look in looks]
        leader = leader_of(views)
        if leader is not None and all(view.report is not None for view in views):
            return leader
        if time.monotonic() > deadline:
            logs = ", ".join(str(child.log_path) for child in children)
            raise Failure(f"no leader after {START_S:.0f} s; the logs say more: {logs}")
    return None


def _introduce(children: Sequence[Child], leader: NodeView, data_dir: Path, logs: bool) -> None:
    rows = [("NODE", "ROLE", "CLIENTS", "PEERS", "PID", "DATA", "LOG")]
    for child in children:
        role = "leader" if str(child.endpoint) == leader.endpoint else "follower"
        peers = str(child.port + 1000)
        log_name = "here" if logs else str(child.log_path)
        rows.append(
            (child.name, role, str(child.endpoint), peers, str(child.pid), str(child.directory), log_name)
        )
    table = plain_columns(rows).splitlines()
    click.secho(table[0], bold=True)
    for line, row in zip(table[1:], rows[1:], strict=True):
        click.secho(line, fg="green" if row[1] == "leader" else None)
    first, last = children[0].endpoint, children[-1].endpoint
    endpoints = ",".join(str(child.endpoint) for child in children)
    option = "" if endpoints == DEFAULT_ENDPOINTS else f" --endpoints {endpoints}"
    victim = next(child for child in children if str(child.endpoint) == leader.endpoint)
    click.echo(
        f"""
Try, in another terminal:

  curl -X PUT --data-binary hello {first}/v1/kv/greeting
  curl {last}/v1/kv/greeting
  raftkv status --watch{option}
  kill -9 {victim.pid}    # the leader, {victim.name}: see who takes over

Ctrl-C stops all nodes; the data stays in {data_dir}."""
    )


def _report_deaths(children: Sequence[Child], stopping: threading.Event) -> None:
    """Until we are to stop. Raises ``Failure`` once all are dead."""
    while not stopping.wait(LOOK_EVERY_S):
        for child in children:
            status = child.exit_status
            if status is not None and not child.reported:
                child.reported = True
                command = shlex.join(child.command)
                click.secho(
                    f"{_death(child, status)}\nStart it again (then it is yours to stop):\n  {command}",
                    fg="red",
                    err=True,
                )
        if all(child.reported for child in children):
            raise Failure("no node is left")


def _death(child: Child, status: int) -> str:
    text = f"{child.name} (pid {child.pid}) {end_in_words(status)}."
    # A node that ended by itself has said why in its log; one that was killed could not.
    tail = child.log_tail() if status > 0 else ""
    return f"{text} Its log, {child.log_path}, ends:\n{tail}" if tail else text


def _refuse_another_size(data_dir: Path, nodes: int) -> None:
    # Another number of nodes is another cluster: majorities of the two need not overlap.
    found = sum(path.is_dir() and path.name[1:].isdigit() for path in data_dir.glob("n*"))
    if found not in (0, nodes):
        raise Failure(f"{data_dir} holds a cluster of {found}: give --nodes {found}, or another --data-dir")


def _config_of(ctx: click.Context) -> Path | None:
    """The --config file, if any: what it says for `serve` is for our nodes too."""
    path: Path | None = ctx.meta.get(CONFIG_META)
    return path
