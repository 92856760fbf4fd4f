"""Three real nodes, the leader cut off from the others: what each level of consistency answers on both sides.

``scripts/partition-demo`` prints it; ``test_consistency.py`` holds it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.harness import Cluster, Node, Reply
from tests.cluster.wires import wired

LEASE_MS = 200
BOUND = "max_staleness=1s"
LEVELS = {
    "linearizable": "consistency=linearizable",
    "lease": "consistency=lease",
    f"stale, {BOUND}": f"consistency=stale&{BOUND}",
    "stale": "consistency=stale",
    "stale, min_revision=2": "consistency=stale&min_revision=2",
}
Answers = Mapping[str, Reply]


async def ask_all(cluster: Cluster, node: Node, patience: str = "500ms") -> dict[str, Reply]:
    """One read at each level."""
    replies = await asyncio.gather(
        *(cluster.get(node, "key", f"?timeout={patience}&{query}") for query in LEVELS.values())
    )
    return dict(zip(LEVELS, replies, strict=True))


async def split(directory: Path) -> tuple[Answers, Answers, Answers]:
    """What a follower answers while all is well; then the cut-off node, when its bounds are over, and one of
    the majority, which has written meanwhile.
    """
    async with wired(directory, options=("--lease-ms", str(LEASE_MS))) as (cluster, network):
        leader = await cluster.leader()
        others = cluster.others(leader)
        await cluster.put(leader, "key", "old")
        await cluster.get(others[0], "key", "?timeout=10s&min_revision=1")
        well = await ask_all(cluster, others[0], patience="2s")
        network.isolate(leader)
        await cluster.leader(among=others)
        written = await cluster.put(others[0], "key", "new")
        assert written.body["revision"] == 2, written

        async def is_over() -> bool:
            reply = await cluster.get(leader, "key", f"?timeout=500ms&consistency=stale&{BOUND}")
            return reply.status == 503

        await cluster.until(is_over, "the bound is over at the node that is cut off")
        cut_off = await ask_all(cluster, leader)
        return well, cut_off, await ask_all(cluster, others[1], patience="10s")


def _cell(reply: Reply) -> str:
    if reply.status != 200:
        return f"{reply.status} {reply.body.get('code', '')}"
    age_ms = reply.headers.get("Raftkv-Staleness-Ms")
    return reply.raw.decode() + (f" ({age_ms} ms old, it says)" if age_ms else "")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="raftkv-partition-") as directory:
        well, cut_off, majority = asyncio.run(split(Path(directory)))
    print('three nodes; "old" was written, the leader cut off, and "new" written through the others\n')
    print(f"{'level':24}{'follower, all well':36}{'the node cut off':36}the majority")
    for level in LEVELS:
        print(f"{level:24}{_cell(well[level]):36}{_cell(cut_off[level]):36}{_cell(majority[level])}")


if __name__ == "__main__":
    main()
