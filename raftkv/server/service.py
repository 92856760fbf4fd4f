"""A running node as its clients see it: the driver's requests, and what there is to tell about the node."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from raftkv.config import Config
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import Change, Index, NodeId
from raftkv.errors import ChangeRefused, Outcome, TimedOut
from raftkv.kv.machine import KvMachine
from raftkv.kv.watch import Hub
from raftkv.ports import PeerView
from raftkv.replica import Replica
from raftkv.server.backup import MachineBackup, backup_of
from raftkv.server.comparing import Comparing
from raftkv.server.driver import Driver
from raftkv.server.housekeeping import Housekeeping
from raftkv.server.levels import common_level, outdated, own_report
from raftkv.server.members import Members
from raftkv.server.observer import role_name
from raftkv.server.queues import Queues
from raftkv.server.receiving import SnapshotReceiver
from raftkv.server.revisions import RevisionWaiters
from raftkv.server.sending import SnapshotSender
from raftkv.server.snapshots import Snapshots
from raftkv.storage.charter import Charter
from raftkv.storage.disk import Disk
from raftkv.tallies import Tallies
from raftkv.transport.network import PeerNetwork
from raftkv.wire.versions import CHANGING_MEMBERS


class NodeService:
    """``ports.Service`` for one node of this process."""

    def __init__(
        self,
        *,
        config: Config,
        replica: Replica,
        machine: KvMachine,
        driver: Driver,
        disk: Disk,
        network: PeerNetwork,
        members: Members,
        charter: Charter,
        snapshots: Snapshots,
        sender: SnapshotSender,
        receiver: SnapshotReceiver,
        housekeeping: Housekeeping,
        comparing: Comparing,
        hub: Hub,
        revisions: RevisionWaiters,
        tallies: Tallies,
    ) -> None:
        self._config = config
        self._replica = replica
        self._machine = machine
        self._disk = disk
        self._network = network
        self._driver = driver
        self._members = members
        self._charter = charter
        self._snapshots = snapshots
        self._sender = sender
        self._receiver = receiver
        self.comparing = comparing
        self.hub = hub
        self.tallies = tallies
        self.stopping = False
        self._started_s = asyncio.get_running_loop().time()
        self.propose = driver.propose  # the hot path: no layer in between
        self.barrier = driver.barrier
        self.transfer = driver.transfer
        self.require = housekeeping.require
        self.staleness_ms = driver.staleness_ms
        self.queues = Queues(self, machine, hub)
        self.vouched_age_ms = driver.vouched_age_ms
        self.reached = revisions.reached

    @property
    def node_id(self) -> NodeId:
        return self._config.node_id

    @property
    def leader(self) -> NodeId | None:
        return self._replica.node.leader

    def cluster_time(self) -> tuple[int, bool]:
        now_ms = self._replica.node.cluster_time_ms
        return (self._machine.time_ms, False) if now_ms is None else (now_ms, True)

    def client_url(self, node: NodeId) -> str | None:
        if node == self.node_id:
            return self._config.client_url
        return self._network.client_url(node)

    def members(self) -> dict[str, Any]:
        return self._members.view(self.summary(), self._network.views())

    async def change_members(self, change: Change, *, force: bool, timeout_ms: float) -> Index:
        if old := outdated(self._network.views(), CHANGING_MEMBERS):
            raise ChangeRefused(
                f"{', '.join(old)} runs a release that doesn't understand changes of members; upgrade first"
            )
        return await self._driver.change_members(change, force=force, timeout_ms=timeout_ms)

    def peers(self) -> Sequence[PeerView]:
        return self._network.views()

    def backup(self) -> MachineBackup:
        return backup_of(self._charter.owner, self._replica, self._machine)

    async def take_snapshot(self, timeout_ms: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                taken = await self._snapshots.take()
        except TimeoutError:
            detail = f"the snapshot is not durable after {timeout_ms:.0f} ms; it goes on"
            raise TimedOut(detail, outcome=Outcome.UNKNOWN) from None
        return {**dataclasses.asdict(taken.meta), "bytes": taken.size_bytes}

    def summary(self) -> dict[str, Any]:
        """The part of the status that the other nodes are sent four times a second."""
        node = self._replica.node
        return {
            "node": node.node_id,
            "role": role_name(node.role),
            "term": node.current_term,
            "leader": node.leader,
            "commit_index": node.commit_index,
            "last_applied": self._replica.last_applied,
            "last_index": node.log.last_index,
            "level": self._machine.level,
            **self.comparing.report(),
            **own_report(),
        }

    def status(self) -> dict[str, Any]:
        node = self._replica.node
        leader = node.leader
        staleness_ms = self.staleness_ms()
        status = {
            **self.summary(),
            "alarm": self.comparing.alarm,
            "cluster_id": self._charter.owner.cluster_id,
            "url": self._config.client_url,
            "peer_address": node.membership.address(self.node_id) or self._config.peer_address,
            "leader_url": None if leader is None else self.client_url(leader),
            "members": list(node.membership.members),
            "voters": list(node.membership.voters),
            "outgoing": list(node.membership.outgoing),
            "learners": [each.node for each in node.membership.learners],
            "common_level": common_level(
                (each for each in node.membership.members if each != self.node_id), self._network.views()
            ),
            "keys": len(self._machine.store),
            "staleness_ms": None if staleness_ms is None else round(staleness_ms),
            "uptime_s": round(asyncio.get_running_loop().time() - self._started_s, 1),
            "waiting": self._replica.waiting,
            "links": {peer.node: {"connected": peer.connected} for peer in self._network.views()},
            "dropped_messages": self._network.dropped_messages(),
            "log": self._snapshots.log_status(),
            "snapshot": {
                **self._snapshots.status(),
                "sending": self._sender.status(),
                "receiving": self._receiver.status(),
            },
            "disk": dataclasses.asdict(self._disk.statistics()),
        }
        if isinstance(node.role, Leader):
            status["peers"] = {
                peer: {
                    "match_index": progress.match_index,
                    "next_index": progress.next_index,
                    "mode": progress.mode.value,
                    "inflight_messages": len(progress.inflight),
                }
                for peer, progress in node.role.progress.items()
            }
        return status
