"""``raftkv recover``: a new cluster of one node, from what a lost cluster's survivor holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raftkv.cli.options import output_option
from raftkv.cli.output import Failure, print_json
from raftkv.cli.restore import BUMP_REVISION, found, refusals
from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.types import NodeId

if TYPE_CHECKING:
    from raftkv.server.survivor import Survivor
    from raftkv.storage.files import Files

WARNING = """\
This gives up the cluster of {node}. Do it only if a majority of its members is lost for good.
- May be lost: what was acknowledged and isn't in {node}'s log, which ends at entry {index} of term {term}.
  Look at every survivor first, and take the one whose log ends last: highest term, then highest index.
- May be there: writes at that log's end that nobody acknowledged, or that were answered as unknown.
- The other members must never run again with their data: add them as new ones, with empty directories."""


@click.command()
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The survivor's. It must be stopped. Nothing in it is changed.",
)
@click.option(
    "--new-data-dir",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the new cluster's only node will keep its log: empty.",
)
@click.option("--id", "node_id", required=True, help="The new cluster's only node.")
@click.option("--cluster", required=True, help="That node and its peer address: ID=HOST:PORT.")
@click.option("--cluster-name", default="", help="As for raftkv serve.")
@click.option(
    "--bump-revision",
    type=click.IntRange(min=0),
    default=BUMP_REVISION,
    show_default=True,
    metavar="N",
    help="Go on so many revisions later: more than may have been written and lost.",
)
@click.option("--force-new-cluster", is_flag=True, help="Yes, the majority is lost. Without it, only look.")
@output_option
def recover(
    *,
    data_dir: Path,
    new_data_dir: Path,
    node_id: str,
    cluster: str,
    cluster_name: str,
    bump_revision: int,
    force_new_cluster: bool,
    output: str,
) -> None:
    """Begin a new cluster of one node with what a survivor of a lost majority holds.

    Then start it with raftkv serve and the same --id, --cluster and --cluster-name, and add the others as new
    members: raftkv serve --join, raftkv member add.
    """
    from raftkv.kv.row import MAX_REVISION  # noqa: PLC0415 - no other command needs these
    from raftkv.server.survivor import read_survivor  # noqa: PLC0415
    from raftkv.storage.datadir import DataDir  # noqa: PLC0415
    from raftkv.storage.files import OsFiles  # noqa: PLC0415

    with refusals():
        members = parse_cluster(cluster)
        if list(members) != [NodeId(node_id)]:
            raise Failure(f"--cluster must name {node_id} and nobody else: the others are added later")
        files = OsFiles()
        locked = DataDir.open(files, data_dir)
        try:
            survivor = read_survivor(files, locked.path)
            if survivor.machine.store.revision + bump_revision > MAX_REVISION:
                raise Failure(
                    f"revision {survivor.machine.store.revision} can't be raised by {bump_revision}"
                )
            if not survivor.last.index:
                raise Failure(f"{data_dir}: this node's log is empty: there is nothing to begin with")
            nowhere = Address("127.0.0.1", 1)  # where it listens makes no difference here
            config = Config(NodeId(node_id), new_data_dir, nowhere, nowhere, members, cluster_name)
            cluster_id = _found(files, config, survivor, bump_revision) if force_new_cluster else None
        finally:
            locked.close()
    last = survivor.last
    warning = WARNING.format(node=survivor.owner.node_id, index=last.index, term=last.term)
    if output == "json":
        print_json(
            {
                "survivor": survivor.owner.node_id,
                "lost_cluster_id": survivor.owner.cluster_id,
                "last_index": last.index,
                "last_term": last.term,
                "current_term": survivor.current_term,
                "keys": len(survivor.machine.store),
                "revision": survivor.machine.store.revision,
                "cluster_id": cluster_id,
                "warning": warning,
            }
        )
    else:
        click.secho(warning, fg="yellow", err=True)
        click.echo(f"{survivor.owner.node_id} holds {len(survivor.machine.store):,} keys")
        if cluster_id is not None:
            click.echo(f"{node_id} of the new cluster {cluster_id} starts with them from {new_data_dir}")
    if cluster_id is None:
        raise Failure("nothing was done: give --force-new-cluster if that is what you want")


def _found(files: Files, config: Config, survivor: Survivor, bump_revision: int) -> str:
    """Fill the new directory; the new cluster's id."""
    from raftkv.kv.snapshot import founding_chunks  # noqa: PLC0415
    from raftkv.storage.founding import founding_token  # noqa: PLC0415

    # Nobody else founds this cluster, so its token may be drawn: no two recoveries are one cluster.
    token = founding_token("", bump_revision, files.random_bytes(16).hex())
    config = replace(config, cluster_token=token)
    found(files, config, survivor.last, founding_chunks(survivor.machine.export(), bump_revision))
    return config.cluster_id
