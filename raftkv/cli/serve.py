"""``raftkv serve``: run one node.

Imports nothing heavy before its handlers for SIGTERM and SIGINT are there.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--id", "node_id", required=True, help="This node's id; a founder's is in --cluster.")
@click.option(
    "--data-dir", required=True, type=click.Path(path_type=Path), help="Where this node keeps its log."
)
@click.option("--listen", default="127.0.0.1:8001", show_default=True, help="HOST:PORT for clients.")
@click.option(
    "--peer-listen", default="127.0.0.1:9001", show_default=True, help="HOST:PORT for the other nodes."
)
@click.option(
    "--cluster", default="", help="The founding members: n1=HOST:PORT,n2=HOST:PORT,... (peer addresses)."
)
@click.option(
    "--join",
    multiple=True,
    metavar="URL",
    help="Be added to the cluster of this node (http://HOST:PORT, or several) instead of founding one.",
)
@click.option(
    "--advertise-peer",
    default="",
    metavar="HOST:PORT",
    help="Where the other nodes find this one, if neither --cluster nor --peer-listen says it.",
)
@click.option("--cluster-name", default="", help="A name for the cluster; by default derived from --cluster.")
@click.option("--advertise", default="", help="The URL under which clients reach this node, if not --listen.")
@click.option("--heartbeat-ms", default=50.0, show_default=True, help="How often a leader is heard.")
@click.option("--election-timeout-min-ms", default=300.0, show_default=True, help="Least wait for a leader.")
@click.option(
    "--election-timeout-max-ms", default=600.0, show_default=True, help="Longest wait for a leader."
)
@click.option(
    "--lease-ms",
    default=0.0,
    show_default=True,
    help="How long followers are bound to the leader they heard, for reads under its lease; 0: no leases.",
)
@click.option(
    "--max-clock-drift",
    default=0.1,
    show_default=True,
    help="How much clocks are off in rate at most (0.1: 10 %); leases rest on it.",
)
@click.option("--segment-bytes", default=16 << 20, show_default=True, help="Size of a log file.")
@click.option(
    "--snapshot-bytes", default=64 << 20, show_default=True, help="Growth of the log between two snapshots."
)
@click.option(
    "--snapshot-margin-bytes",
    default=8 << 20,
    show_default=True,
    help="What of the log is kept behind a snapshot, for slow followers.",
)
@click.option(
    "--snapshot-send-bytes-per-s",
    default=64 << 20,
    show_default=True,
    help="How fast snapshots are sent.",
)
@click.option(
    "--quota-bytes",
    default=0,
    show_default=True,
    help="How much may be stored: beyond it keys can only be deleted. 0: no bound.",
)
@click.option("--request-timeout-ms", default=5000.0, show_default=True, help="How long a request may wait.")
@click.option(
    "--drain-ms",
    default=5000.0,
    show_default=True,
    help="How long a stopping node answers what it was asked.",
)
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
@click.option("--log-format", default="auto", show_default=True, help="json, console or auto.")
def serve(node_id: str, data_dir: Path, listen: str, peer_listen: str, cluster: str, **rest: object) -> None:
    """Run one node of a cluster until SIGTERM or Ctrl-C.

    It founds the cluster with the others in --cluster, or waits to be added to the one of --join. Both count
    until it has a data directory; from then on the members are those that the cluster has agreed on.

    It hands the lead over if it has it, answers what it was asked, and ends; told again, it ends at once.

    \b
    Exit codes: 0 stopped, or removed from the cluster; 65 damaged, lost or replaced data, 70 broken
    invariant, 73 data directory or port unusable, 74 disk failed, 78 configuration.
    """
    if not cluster and not rest["join"]:
        raise click.UsageError("give --cluster to found one, or --join to be added to one")
    with _ends_when_told():
        _serve(node_id, data_dir, (listen, peer_listen), cluster, rest)


@contextmanager
def _ends_when_told() -> Iterator[None]:
    """Exit code 0 for who is told to stop before the server has handlers of its own; it has promised nothing
    yet.
    """

    def end(number: int, frame: Any) -> None:
        sys.exit(0)

    kept = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _serve(node_id: str, data_dir: Path, at: tuple[str, str], cluster: str, rest: dict[str, Any]) -> None:
    # A server is heavy: only this command needs it, and only once it can be told to stop.
    from raftkv.config import Address, Config, parse_cluster, parse_join  # noqa: PLC0415
    from raftkv.consensus.types import NodeId  # noqa: PLC0415
    from raftkv.errors import StartError  # noqa: PLC0415
    from raftkv.server.lean import lean_imports  # noqa: PLC0415

    try:
        advertise_peer = rest.pop("advertise_peer")
        config = Config(
            node_id=NodeId(node_id),
            data_dir=data_dir,
            listen=Address.parse(at[0], "--listen"),
            peer_listen=Address.parse(at[1], "--peer-listen"),
            cluster=parse_cluster(cluster),
            join=parse_join(rest.pop("join")),
            advertise_peer=Address.parse(advertise_peer, "--advertise-peer") if advertise_peer else None,
            **rest,
        )
        with lean_imports(config.log_format, config.join):
            from raftkv.server import logs, process  # noqa: PLC0415
        logs.configure(config.log_level, config.log_format, config.node_id)
        process.serve(config)
    except StartError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
