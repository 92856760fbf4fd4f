"""``raftkv serve``: run one node."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.types import NodeId
from raftkv.errors import StartError


@click.command()
@click.option("--id", "node_id", required=True, help="This node's id, one of those in --cluster.")
@click.option(
    "--data-dir", required=True, type=click.Path(path_type=Path), help="Where this node keeps its log."
)
@click.option("--listen", default="127.0.0.1:8001", show_default=True, help="HOST:PORT for clients.")
@click.option(
    "--peer-listen", default="127.0.0.1:9001", show_default=True, help="HOST:PORT for the other nodes."
)
@click.option("--cluster", required=True, help="All members: n1=HOST:PORT,n2=HOST:PORT,... (peer addresses).")
@click.option("--cluster-name", default="", help="A name for the cluster; by default derived from --cluster.")
@click.option("--advertise", default="", help="The URL under which clients reach this node, if not --listen.")
@click.option("--heartbeat-ms", default=50.0, show_default=True, help="How often a leader is heard.")
@click.option("--election-timeout-min-ms", default=300.0, show_default=True, help="Least wait for a leader.")
@click.option(
    "--election-timeout-max-ms", default=600.0, show_default=True, help="Longest wait for a leader."
)
@click.option("--segment-bytes", default=16 << 20, show_default=True, help="Size of a log file.")
@click.option("--request-timeout-ms", default=5000.0, show_default=True, help="How long a request may wait.")
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
@click.option("--log-format", default="auto", show_default=True, help="json, console or auto.")
def serve(node_id: str, data_dir: Path, listen: str, peer_listen: str, cluster: str, **rest: object) -> None:
    """Run one node of a cluster until SIGTERM or Ctrl-C.

    \b
    Exit codes: 0 stopped, 65 damaged data, 70 broken invariant, 73 data directory or port unusable,
    74 disk failed, 78 configuration.
    """
    from raftkv.server import app, logs  # noqa: PLC0415 (a server is heavy; only this command needs it)

    try:
        config = Config(
            node_id=NodeId(node_id),
            data_dir=data_dir,
            listen=Address.parse(listen, "--listen"),
            peer_listen=Address.parse(peer_listen, "--peer-listen"),
            cluster=parse_cluster(cluster),
            **rest,  # type: ignore[arg-type]
        )
        logs.configure(config.log_level, config.log_format, config.node_id)
        app.serve(config)
    except StartError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
