"""What somebody must see to without being asked: that the machine's level rises when all members understand
it, that time goes on for leases, and that the past is forgotten. The leader does it, by commands in the log.
"""

from __future__ import annotations

import asyncio

import structlog

from raftkv.config import Config
from raftkv.consensus.ready import Ready
from raftkv.errors import RaftkvError, UpgradeUnfinished
from raftkv.kv.commands import encode_compact, encode_level, encode_tick
from raftkv.kv.levels import FEATURES, MACHINE_LEVEL
from raftkv.kv.machine import KvMachine
from raftkv.replica import Replica
from raftkv.server.driver import Driver
from raftkv.server.levels import common_level
from raftkv.transport.network import PeerNetwork

logger = structlog.get_logger(__name__)

LOOK_S = 0.1  # so late a lease may end
_TIMEOUT_MS = 5_000.0


class Housekeeping:
    def __init__(
        self, *, config: Config, replica: Replica, machine: KvMachine, driver: Driver, network: PeerNetwork
    ) -> None:
        self._config = config
        self._replica = replica
        self._machine = machine
        self._driver = driver
        self._network = network
        self._level = machine.level
        self._has_risen = asyncio.Event()  # set and replaced each time the level rises

    def turned(self, ready: Ready) -> None:
        """A turn is over, and what ``ready`` says is applied."""
        if self._machine.level != self._level:
            self._level = self._machine.level
            logger.info("the machine's level has risen: all members understand it", level=self._level)
            self._has_risen.set()
            self._has_risen = asyncio.Event()

    async def require(self, feature: str, timeout_ms: float) -> None:
        """Return when the machine understands ``feature``, one of ``kv.levels.FEATURES``: usually at once.

        Raises ``UpgradeUnfinished``.
        """
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while self._machine.level < FEATURES[feature]:
                    await self._has_risen.wait()
        except TimeoutError:
            raise UpgradeUnfinished(
                f"{feature} can't be used yet: not all members of the cluster have been heard to understand "
                "it; start those that are down, or upgrade them",
                retry_after_ms=1000,
            ) from None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                command = self._next_command()
                if command is not None:
                    await self._driver.propose(command, _TIMEOUT_MS)
            except RaftkvError as error:
                logger.debug("housekeeping waits", reason=str(error))  # it is tried again

    def _next_command(self) -> bytes | None:
        """What is to be proposed now, if this node leads."""
        node, machine = self._replica.node, self._machine
        now_ms = node.cluster_time_ms
        if now_ms is None:
            return None
        if machine.level < MACHINE_LEVEL:
            others = [each for each in node.membership.members if each != node.node_id]
            level = common_level(others, self._network.views())
            return encode_level(level) if level > machine.level else None
        if machine.due_ms <= now_ms:
            return encode_tick()
        history = machine.store.history
        assert history is not None
        upto = history.compactable(self._config.history_changes, now_ms - self._config.history_ms)
        return encode_compact(upto) if upto > history.compacted else None
