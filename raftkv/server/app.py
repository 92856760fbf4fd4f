"""A node: builds the rooms onto each other, runs until it is told to stop or fails, takes them down in order.
``process`` is a process of it, which is told by signals; ``embedding`` runs it within another program.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import structlog
from aiohttp import web

from raftkv.api import Limits, RestServer
from raftkv.config import Config
from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.messages import Envelope
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready
from raftkv.consensus.types import GroupId, NodeId
from raftkv.errors import RaftkvError, StartError, TimedOut
from raftkv.kv.watch import Hub
from raftkv.replica import Replica
from raftkv.server import start
from raftkv.server.comparing import Comparing
from raftkv.server.door import Door
from raftkv.server.driver import Driver
from raftkv.server.housekeeping import Housekeeping
from raftkv.server.members import Members
from raftkv.server.receiving import SnapshotReceiver
from raftkv.server.revisions import RevisionWaiters
from raftkv.server.sending import SnapshotSender
from raftkv.server.service import NodeService
from raftkv.server.snapshots import Snapshots, Taken
from raftkv.server.worker import Worker
from raftkv.storage.charter import Charter
from raftkv.storage.disk import Disk
from raftkv.storage.segment import EXIT_DAMAGED
from raftkv.tallies import Tallies
from raftkv.transport.hello import Identity
from raftkv.transport.network import PeerNetwork
from raftkv.transport.snapshots import Incoming
from raftkv.wire.snapshots import Offer

logger = structlog.get_logger(__name__)

EXIT_BROKEN = 70  # sysexits EX_SOFTWARE: a broken invariant
EXIT_PORT = 73  # EX_CANTCREAT

_GROUP = GroupId(0)
_GOODBYE_S = 1.0  # for connections to end by themselves
_BEAT_S = 15.0  # how often those who watch are told that the node lives, and how far it is
_PUBLISH_S = 0.25  # how often the other nodes are told this one's status


def _nothing() -> None:
    pass


class NodeProcess:
    """One node on the running event loop; ``run`` returns when it has stopped."""

    def __init__(self, config: Config, charter: Charter, begin: start.Start) -> None:
        self._config = config
        self._failure: StartError | None = None
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()  # what is not done by now is not done any more
        loop = asyncio.get_running_loop()
        self._machine = begin.machine
        node = Node(
            config.node_id,
            begin.membership,
            uniform=random.Random().uniform,
            now_ms=time.monotonic() * 1000,
            hard_state=begin.hard_state,
            log=begin.log,
            applied=begin.applied.index,
            group=_GROUP,
            timing=config.timing,
        )
        self.tallies = Tallies()
        self._replica = Replica(
            node,
            self._machine,
            incarnation=begin.incarnation,
            applied=begin.applied.index,
            on_batch=self._on_batch,
        )
        self._disk = Disk(
            begin.wal, loop.call_soon_threadsafe, self._on_disk_failure, on_fsync=self._on_fsync
        )
        self._network = PeerNetwork(
            identity=_identity(config, charter, begin),
            listen=(config.peer_listen.host, config.peer_listen.port),
            peers={},
            on_envelopes=self._on_envelopes,
            on_peer_lost=self._on_peer_lost,
            on_disowned=self._on_disowned,
            known_incarnation=self._machine.incarnation,
            hints={peer: str(address) for peer, address in config.cluster.items()},
            on_offer=self._on_offer,
        )
        self._driver = Driver(
            self._replica,
            self._disk,
            self._network,
            on_fatal=self._on_fatal,
            on_turn=self._on_turn,
            clock=time.monotonic,
            tallies=self.tallies,
        )
        self._revisions = RevisionWaiters(lambda: self._machine.store.revision)
        self._members = Members(
            replica=self._replica,
            driver=self._driver,
            network=self._network,
            charter=charter,
            peer_address=config.peer_address,
            on_removed=self._on_removed,
        )
        self._hub = Hub(self._machine.store, loop.call_soon)
        self._make_snapshots(begin)
        self._housekeeping = Housekeeping(
            config=config,
            replica=self._replica,
            machine=self._machine,
            driver=self._driver,
            network=self._network,
        )
        self._service = self._make_service(charter)

    def _make_service(self, charter: Charter) -> NodeService:
        return NodeService(
            config=self._config,
            replica=self._replica,
            machine=self._machine,
            driver=self._driver,
            disk=self._disk,
            network=self._network,
            members=self._members,
            charter=charter,
            snapshots=self._snapshots,
            sender=self._sender,
            receiver=self._receiver,
            housekeeping=self._housekeeping,
            comparing=Comparing(replica=self._replica, machine=self._machine, on_diverged=self._on_fatal),
            hub=self._hub,
            revisions=self._revisions,
            tallies=self.tallies,
        )

    def _make_snapshots(self, begin: start.Start) -> None:
        config, worker = self._config, Worker("raftkv-snapshots")
        self._worker = worker
        self._snapshots = Snapshots(
            replica=self._replica,
            disk=self._disk,
            files=begin.snapshots,
            worker=worker,
            newest=Taken(begin.applied, begin.snapshot_bytes),
            bound_bytes=config.snapshot_bytes,
            margin_bytes=config.snapshot_margin_bytes,
            on_fatal=self._driver.broken,
        )
        self._sender = SnapshotSender(
            replica=self._replica,
            driver=self._driver,
            snapshots=self._snapshots,
            files=begin.snapshots,
            transport=self._network,
            bytes_per_s=config.snapshot_send_bytes_per_s,
        )
        self._receiver = SnapshotReceiver(
            replica=self._replica,
            driver=self._driver,
            snapshots=self._snapshots,
            files=begin.snapshots,
            worker=worker,
            disk=self._disk,
        )

    @property
    def service(self) -> NodeService:
        return self._service

    async def run(self, on_open: Callable[[], None] = _nothing) -> None:
        """Serve until ``stop`` or a failure; ``on_open`` is told when clients can come. Raises ``StartError``
        if it can't start or go on.
        """
        api = RestServer(self._service, self._machine, self._api_limits())
        runner = web.ServerRunner(api, shutdown_timeout=_GOODBYE_S)
        door = Door(api)
        works = (self._publish(), self._housekeeping.run(), self._beat())
        tasks = [asyncio.create_task(each) for each in works]
        try:
            self._members.start()
            await self._network.start()
            self._driver.start()
            await runner.setup()
            await self._open(door)
            on_open()
            logger.info("serving", url=self._config.client_url, peers=str(self._config.peer_listen))
            await self._stopping.wait()
            await self._leave(api, door)
        finally:
            for task in tasks:
                task.cancel()
            await self._members.stop()
            for each in (self._snapshots, self._sender, self._receiver, self._revisions):
                each.stop()
            self._driver.stop("this node is stopping; ask another")
            await door.close()
            await runner.cleanup()
            await self._network.close()
            await asyncio.to_thread(self._disk.close)
            self._worker.close()
        if self._failure is not None:
            raise self._failure

    async def _open(self, door: Door) -> None:
        listen = self._config.listen
        try:
            await door.open(listen)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"cannot listen for clients on {listen}: {reason}", EXIT_PORT) from None

    def _api_limits(self) -> Limits:
        config = self._config
        return Limits(
            max_key_bytes=config.max_key_bytes,
            max_value_bytes=config.max_value_bytes,
            max_request_bytes=config.max_request_bytes,
            request_timeout_ms=config.request_timeout_ms,
            max_request_timeout_ms=config.max_request_timeout_ms,
            quota_bytes=config.quota_bytes,
        )

    async def _publish(self) -> None:
        while True:
            try:
                self._network.publish(self._service.summary())
                self._members.look()
                self._service.comparing.look(self._network.views())
            except Exception:  # a report that can't be made must not end all later ones
                logger.exception("no status report")
            await asyncio.sleep(_PUBLISH_S)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            self._hub.beat()

    # -- the end -------------------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        """Hand the lead over, answer what was asked, and end; told again, end at once."""
        if self._stopping.is_set():
            logger.info("stopping at once", why=why)
            self._hurried.set()
            return
        logger.info("stopping", why=why)
        self._service.stopping = True
        self._stopping.set()

    def _on_removed(self) -> None:
        self._service.stopping = True
        self._stopping.set()

    def _on_disowned(self, peer: NodeId, reason: str) -> None:
        """NB: one peer's word is enough: it knows of a later run than this one, and waiting for more would
        only give this node the time to vote once more where it has voted.
        """
        me = self._config.node_id
        self._on_fatal(
            StartError(
                f"{peer} knows later runs of {me} than this one: {self._config.data_dir} was lost, replaced "
                f"or put back from a copy. {me} must not go on under this id: start a new node in its place, "
                f"with an empty data directory, and run raftkv member replace {me} NEW_ID HOST:PORT",
                EXIT_DAMAGED,
            )
        )

    async def _leave(self, api: RestServer, door: Door) -> None:
        """Until all is done that can be, or we are told to hurry, or something fails."""
        leaving = asyncio.create_task(self._leave_in_order(api, door))
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({leaving, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for task in (leaving, hurried):
            task.cancel()
        for result in await asyncio.gather(leaving, hurried, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _leave_in_order(self, api: RestServer, door: Door) -> None:
        """First the lead goes, with everything still served; then nobody new comes in; then those within are
        answered. So writes stop for no longer than the handover takes, and no request is lost.
        """
        await self._hand_over()
        await door.close()
        await api.drain(self._config.drain_ms / 1000)
        await self._hand_over()  # it may have been elected meanwhile

    async def _hand_over(self) -> None:
        """If we lead, let the fittest follower lead, within an election timeout; else we go all the same."""
        loop, node_id = asyncio.get_running_loop(), self._config.node_id
        deadline = loop.time() + self._config.timing.election_timeout_min_ms / 1000
        while self._service.leader == node_id and loop.time() < deadline:
            try:
                leader, term = await self._driver.transfer(None, (deadline - loop.time()) * 1000)
                logger.info("handed over", leader=leader, term=term)
            except TimedOut as error:  # its target may have died: then there is time for another
                logger.warning("not handed over", reason=str(error))
            except RaftkvError as error:
                logger.info("not handed over", reason=str(error))
                return

    def _on_fatal(self, error: BaseException) -> None:
        if self._failure is None:
            if isinstance(error, InvariantBroken):
                self._failure = StartError(f"a promise of the protocol is broken: {error}", EXIT_BROKEN)
            elif isinstance(error, StartError):
                self._failure = error
            else:
                self._failure = StartError(f"a bug: {error!r}", EXIT_BROKEN)
            logger.error("this node stops", reason=str(self._failure), exc_info=error)
        self._hurried.set()
        self._stopping.set()

    # The driver needs the disk and the network, and they call the driver: these tie the knot.

    def _on_disk_failure(self, error: BaseException) -> None:
        self._driver.disk_failed(error)

    def _on_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        self._driver.on_envelopes(envelopes)

    def _on_peer_lost(self, peer: NodeId) -> None:
        self._driver.on_peer_lost(peer)

    def _on_turn(self, ready: Ready) -> None:
        self._members.turned(ready)
        self._snapshots.turned(ready)
        self._sender.turned(ready)
        self._housekeeping.turned(ready)
        self._hub.look()
        self._revisions.turned()

    def _on_offer(self, sender: NodeId, offer: Offer) -> Incoming | None:
        return self._receiver.offered(sender, offer)

    # -- what is worth a line ------------------------------------------------------------------------------

    def _on_batch(self, commands: int, waited_ms: float) -> None:
        self.tallies.batch.observe(commands)
        self.tallies.commit.observe(waited_ms / 1000)

    def _on_fsync(self, seconds: float) -> None:
        """Called on the disk's thread."""
        self.tallies.fsync.observe(seconds)
        if seconds * 1000 > self._config.slow_fsync_ms:
            logger.warning(
                "slow fsync: writes wait for it, and elections may begin for no reason",
                fsync_ms=round(seconds * 1000, 1),
                election_timeout_ms=self._config.election_timeout_min_ms,
            )


def _identity(config: Config, charter: Charter, begin: start.Start) -> Identity:
    return Identity(
        charter.owner.cluster_id,
        config.node_id,
        begin.incarnation,
        config.client_url,
        peer_address=config.peer_address,
        directory=charter.directory,
    )
