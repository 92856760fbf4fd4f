"""What clients ask of a node: each is answered by the leader, or put to the one that this node knows."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.consensus.changes import Changes
from raftkv.consensus.messages import ChangeMembers, LeaseRead, Propose, ReadIndex, TransferLeadership
from raftkv.consensus.reads import Reads
from raftkv.consensus.replication import Replication
from raftkv.consensus.roles import Leader, ReadRequest
from raftkv.consensus.transfer import Transfers
from raftkv.consensus.types import Change, EntryKind, NodeId
from raftkv.consensus.view import View


class Asking(View):
    """The side of ``Node`` that clients' requests come to."""

    _replication: Replication
    _reads: Reads
    _transfers: Transfers
    _changes: Changes

    def propose(self, batches: Sequence[bytes]) -> bool:
        """Ask for ``batches`` to be appended, here or by the leader we know.

        Returns False, and does nothing, without a leader, while we hand over the lead, or when too much waits
        to be committed. True promises nothing: the batches are decided when they come back as committed
        entries; until then they may be lost.
        """
        core = self._core
        if isinstance(core.role, Leader):
            if not self._replication.takes(core.role):
                return False
            for batch in batches:
                self._replication.append(core.role, EntryKind.BATCH, batch)
            return True
        leader = self.leader
        if leader is None:
            return False
        core.send(leader, Propose(tuple(batches)))
        return True

    def read(self, read_id: int, *, by_lease: bool = False) -> bool:
        """Ask up to where to apply before answering reads that arrived before now; a ``ReadGrant`` may
        follow.

        ``read_id`` must be new in this node's whole life, restarts included (R3). ``by_lease``: the leader
        may answer under its lease, which saves the round; NB: the clock that was given last must have been
        read after those reads came. Returns False without a leader. True promises nothing: ask again under
        another id if the leader changes or no grant comes.
        """
        core = self._core
        if isinstance(core.role, Leader):
            return self._reads.register(core.role, ReadRequest(None, read_id, by_lease))
        leader = self.leader
        if leader is None:
            return False
        core.send(leader, LeaseRead(read_id) if by_lease else ReadIndex(read_id))
        return True

    @property
    def lease_until_ms(self) -> float:
        """Until when this node answers reads under its lease, by its own clock; -inf: it has none."""
        role = self._core.role
        return self._reads.lease_until_ms(role) if isinstance(role, Leader) else float("-inf")

    def transfer(self, target: NodeId | None) -> bool:
        """Ask that ``target`` lead in the leader's place; None: whoever the leader finds fittest.

        Returns False, and does nothing, without a leader, for no voter, or where we lead and nobody is fit.
        True promises nothing: who leads then is seen by ``leader``, and whether we still try by
        ``hands_over_to``.
        """
        core = self._core
        leader = self.leader
        if leader is None or (target is not None and target not in core.membership.voters):
            return False
        if isinstance(core.role, Leader):
            return self._transfers.begin(core.role, target)
        core.send(leader, TransferLeadership(target))
        return True

    def change_members(self, context: int, change: Change, *, force: bool) -> bool:
        """Ask for a change of members; a ``ChangeReply`` with ``context`` may follow.

        ``context`` must be new in this node's whole life, restarts included. Returns False without a leader.
        True promises nothing: ask again if the leader changes or no answer comes; that does no harm.
        """
        core = self._core
        message = ChangeMembers(context, change, force)
        if isinstance(core.role, Leader):
            self._changes.request(core.role, None, message)
            return True
        leader = self.leader
        if leader is None:
            return False
        core.send(leader, message)
        return True
