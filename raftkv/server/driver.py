"""The asyncio loop round a replica: it carries out each turn's ``Ready``, and is the ``Service`` the API
speaks to.

A turn is due when something came in: requests, messages, a finished write, the clock. All that comes in
during one pass of the event loop is one turn, so that load makes larger batches rather than more turns. The
contract is ``consensus/ready.py``'s; nothing here decides anything about the protocol.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import structlog

from raftkv.consensus.messages import Envelope
from raftkv.consensus.ready import Ready
from raftkv.consensus.types import Change, Index, Membership, NodeId, SnapshotMeta, Term
from raftkv.errors import RaftkvError, ShuttingDown
from raftkv.kv.machine import Restoring
from raftkv.ports import Storage, Transport
from raftkv.replica import Replica
from raftkv.server.observer import Observer
from raftkv.tallies import Tallies
from raftkv.waiting import Answer

logger = structlog.get_logger(__name__)


def _nobody(ready: Ready) -> None:
    pass


class Driver:
    """Runs one replica on the running event loop. Not thread-safe: all happens on the loop's thread."""

    def __init__(
        self,
        replica: Replica,
        storage: Storage,
        transport: Transport,
        *,
        on_fatal: Callable[[BaseException], None],
        on_turn: Callable[[Ready], None] = _nobody,
        clock: Callable[[], float] | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        """``on_fatal`` is called once if the replica or its disk is broken; from then on nothing happens
        here. ``on_turn`` is told what each turn led to, when it is carried out and applied. ``clock``: the
        time in seconds, of the same clock as the loop's, but read when it is called: leases rest on that
        (a loop's own may be what it was when its pass began, as uvloop's is). None: the loop's.
        """
        self._replica = replica
        self._storage = storage
        self._transport = transport
        self._on_fatal = on_fatal
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._tallies = tallies or Tallies()
        self._observer = Observer(replica, self._tallies)
        self._turn_due = False
        self._stopped = False
        self._refuse_detail: str | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_due_s = float("inf")
        # Promises of turns whose write is under way, oldest first; one without a write of its own joins the
        # last.
        self._promised: deque[list[Envelope]] = deque()

    # -- what clients ask (ports.Service) -------------------------------------------------------------------

    def propose(self, command: bytes, timeout_ms: float) -> asyncio.Future[Any]:
        ticket: asyncio.Future[Any] = self._loop.create_future()
        self._admit()
        self._replica.propose(command, ticket, self._now_ms() + timeout_ms)
        self._wake()
        return ticket

    def barrier(self, timeout_ms: float, *, by_lease: bool = False) -> asyncio.Future[None]:
        ticket: asyncio.Future[None] = self._loop.create_future()
        self._admit()
        self._replica.barrier(ticket, self._now_ms() + timeout_ms, by_lease=by_lease)
        self._wake()
        return ticket

    def transfer(self, target: NodeId | None, timeout_ms: float) -> asyncio.Future[tuple[NodeId, Term]]:
        ticket: asyncio.Future[tuple[NodeId, Term]] = self._loop.create_future()
        self._admit()
        self._replica.transfer(target, ticket, self._now_ms() + timeout_ms)
        self._wake()
        return ticket

    def change_members(self, change: Change, *, force: bool, timeout_ms: float) -> asyncio.Future[Index]:
        ticket: asyncio.Future[Index] = self._loop.create_future()
        self._admit()
        self._replica.change_members(change, force, ticket, self._now_ms() + timeout_ms)
        self._wake()
        return ticket

    def staleness_ms(self) -> float | None:
        return self._age_ms(self._replica.fresh_ms)

    def vouched_age_ms(self) -> float | None:
        return self._age_ms(self._replica.vouched_ms)

    def _age_ms(self, at_ms: float) -> float | None:
        return None if at_ms == float("-inf") else max(0.0, self._now_ms() - at_ms)

    def _admit(self) -> None:
        if self._refuse_detail is not None:
            raise ShuttingDown(self._refuse_detail, retry_after_ms=1000)

    # -- what comes in -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._wake()

    def on_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        if self._stopped:
            return
        try:
            self._replica.clock(self._now_ms())
            for envelope in envelopes:
                self._replica.step(envelope)
        except Exception as error:
            self._fail(error)
        self._wake()

    def on_peer_lost(self, peer: NodeId) -> None:
        if self._stopped:
            return
        try:
            self._replica.clock(self._now_ms())
            self._replica.peer_lost(peer)
        except Exception as error:
            self._fail(error)
        self._wake()

    def install(
        self, sender: NodeId, term: Term, meta: SnapshotMeta, membership: Membership, restoring: Restoring
    ) -> None:
        """See ``Replica.install``. When this returns, the machine is the snapshot's if the log needed it, and
        the write that says so is queued.
        """
        if self._stopped:
            return
        try:
            self._replica.clock(self._now_ms())
            self._replica.install(sender, term, meta, membership, restoring)
        except Exception as error:
            self._fail(error)
        self._turn()

    def snapshot_ended(self, peer: NodeId) -> None:
        """See ``Replica.snapshot_ended``."""
        if not self._stopped:
            self._replica.snapshot_ended(peer)

    def _on_durable(self, ready: Ready) -> None:
        """The oldest write under way is on disk: its promises may leave, and the node may count itself."""
        if self._stopped:
            return
        try:
            self._transport.send(self._promised.popleft())
            if self._replica.persisted(ready.mark):
                self._wake()
        except Exception as error:
            self._fail(error)

    def _on_timer(self) -> None:
        self._observer.woke(late_ms=(self._loop.time() - self._timer_due_s) * 1000)
        self._timer, self._timer_due_s = None, float("inf")
        if self._replica.due_ms > self._now_ms():  # put off since
            self._set_timer()
        else:
            self._wake()

    # -- the turn ------------------------------------------------------------------------------------------

    def _now_ms(self) -> float:
        return self._clock() * 1000

    def _wake(self) -> None:
        if not self._turn_due and not self._stopped:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if self._stopped:
            return
        began_s = perf_counter()
        try:
            self._replica.tick(self._now_ms())
            ready = self._replica.take_ready()
            self._carry_out(ready)
            self._apply(ready)
            self._on_turn(ready)
            self._observer.turn()
        except Exception as error:
            self._fail(error)
            return
        if self._replica.has_more:
            self._wake()
        self._set_timer()
        self._tallies.turn.observe(perf_counter() - began_s)

    def _apply(self, ready: Ready) -> None:
        began_s = perf_counter()
        answers = self._replica.apply(ready)
        if ready.committed:
            self._tallies.apply.observe(perf_counter() - began_s)
        _answer(answers)

    def _carry_out(self, ready: Ready) -> None:
        if ready.messages:
            self._transport.send(ready.messages)
        if ready.write is not None:
            self._promised.append(list(ready.promises))
            self._storage.write(ready.write, lambda: self._on_durable(ready))
        elif ready.promises:
            if self._promised:
                self._promised[-1].extend(ready.promises)
            else:
                self._transport.send(ready.promises)

    def _set_timer(self) -> None:
        """Wake when the replica is due. A timer that is due earlier stays: looking early costs less than
        resetting, with every turn.
        """
        due_s = self._replica.due_ms / 1000
        if self._timer_due_s <= due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_due_s = self._loop.call_at(due_s, self._on_timer), due_s

    # -- the end -------------------------------------------------------------------------------------------

    def refuse(self, detail: str | None) -> None:
        """Take no requests from now on, those taken go on; None: take them again."""
        if not self._stopped:
            self._refuse_detail = detail

    def stop(self, detail: str) -> None:
        """Stop for good; whoever still waits is told, each with the outcome that is true for it."""
        if self._stopped:
            return
        self._refuse_detail = detail
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        _answer(self._replica.fail_all(ShuttingDown, detail))

    def _fail(self, error: BaseException) -> None:
        """A broken invariant, or a bug: a wrong answer would be worse than none (law 8)."""
        if not self._stopped:
            self.stop("this node is broken and stops; ask another")
            self._on_fatal(error)

    def broken(self, error: BaseException) -> None:
        """Somebody who works on this replica met a broken invariant, or a bug."""
        self._fail(error)

    def disk_failed(self, error: BaseException) -> None:
        """A write or an fsync failed. Never retried: what the kernel then says of those pages isn't true."""
        self._fail(error)


def _answer(answers: list[Answer]) -> None:
    for ticket, answer in answers:
        if ticket.done():  # its client is gone
            continue
        if isinstance(answer, RaftkvError):
            ticket.set_exception(answer)
        else:
            ticket.set_result(answer)
