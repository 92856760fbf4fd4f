"""Which cluster a node belongs to when it starts: what its data directory says; else the one it founds, or
the one it is to be added to.

A node that joins asks any node of that cluster, as a client, for the cluster's id and its members. It asks
until one answers, and once only: afterwards its charter says the cluster, and its own log the members.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import structlog

from raftkv.config import EXIT_CONFIG, Address, Config
from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.storage.charter import Charter, new_charter, read_charter
from raftkv.storage.files import Files
from raftkv.storage.segment import Owner

logger = structlog.get_logger(__name__)

_ASK_TIMEOUT_S = 5.0
_PAUSE_S = 1.0
_MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Beginning:
    charter: Charter
    is_new: bool  # not written yet: it is when the directory is known to be this node's


async def begin(config: Config, files: Files, directory: Path) -> Beginning:
    """The charter of ``directory``, or the one to be. Raises ``StartError``."""
    charter = read_charter(files, directory)
    if charter is not None:
        _check(config, charter, directory)
        return Beginning(charter, is_new=False)
    cluster_id, contacts = config.cluster_id, dict[NodeId, str]()
    if config.join:
        cluster_id, contacts = await _ask_until_told(config)
        contacts.pop(config.node_id, None)
    owner = Owner(cluster_id, config.node_id)
    return Beginning(new_charter(files, owner, founders=config.founders, contacts=contacts), is_new=True)


def _check(config: Config, charter: Charter, directory: Path) -> None:
    """Whether the options can mean the cluster that the directory is of."""
    owner = charter.owner
    if owner.node_id != config.node_id:
        raise StartError(
            f"{directory}: this data directory belongs to node {owner.node_id!r}, and this is node "
            f"{config.node_id!r}; give each node its own --data-dir",
            EXIT_CONFIG,
        )
    if not charter.founders or not config.founders:
        return
    if config.cluster_name and config.cluster_id != owner.cluster_id:
        raise StartError(
            f"{directory}: this data directory belongs to cluster {owner.cluster_id}, and this node was told "
            f"cluster {config.cluster_id}; check --cluster, --cluster-name and --data-dir",
            EXIT_CONFIG,
        )
    # NB: the addresses may have changed; who founded a cluster can't.
    if sorted(charter.founders) != sorted(config.founders):
        raise StartError(
            f"{directory}: this data directory's cluster was founded by {', '.join(charter.founders)}, "
            f"and --cluster names {', '.join(config.founders)}; leave --cluster as it was founded (members "
            "are changed by raftkv member), or check --data-dir",
            EXIT_CONFIG,
        )


async def _ask_until_told(config: Config) -> tuple[str, dict[NodeId, str]]:
    reasons: dict[str, str] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ASK_TIMEOUT_S)) as session:
        while True:
            for url in config.join:
                try:
                    cluster_id, members = await _ask(session, url)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    if reasons.get(url) != reason:
                        logger.warning("can't ask which cluster to join yet", url=url, reason=reason)
                    reasons[url] = reason
                    continue
                logger.info("told which cluster to join", by=url, cluster_id=cluster_id, members=members)
                return cluster_id, members
            await asyncio.sleep(_PAUSE_S)


async def _ask(session: aiohttp.ClientSession, url: str) -> tuple[str, dict[NodeId, str]]:
    """The cluster's id, and its members' peer addresses. Raises ValueError for what is none."""
    async with session.get(f"{url}/v1/cluster") as answer:
        if answer.status != 200:
            raise ValueError(f"answered HTTP {answer.status}")
        raw = await answer.content.read(_MAX_ANSWER_BYTES)
    return read_cluster(raw)


def read_cluster(raw: bytes) -> tuple[str, dict[NodeId, str]]:
    """What an answer of ``GET /v1/cluster`` says. Raises ValueError."""

    document = orjson.loads(raw)
    try:
        cluster_id, members = document["cluster_id"], document["members"]
        found: Mapping[NodeId, str] = {NodeId(each["node"]): each["peer_address"] for each in members}
        Owner(cluster_id, NodeId("any"))
        for node, address in found.items():
            Address.parse(address, f"the address of {node}")
    except (KeyError, TypeError, AttributeError, StartError) as error:
        raise ValueError(f"this is no answer of a raftkv node: {error!r}") from None
    if not found:
        raise ValueError("it knows of no members: is it waiting to be added itself?")
    return cluster_id, dict(found)
