"""Raft, as a pure library: inputs in, one bundle out. Nothing here knows asyncio, disks, sockets, clocks or
chance.

The protocol in prose
---------------------
A *group* of nodes keeps identical logs. In each *term* at most one *leader* exists; it appends entries to its
own log and sends them to the others. An entry that a majority has on disk, in the term that made it, is
*committed*: every later leader has it (elections see to that: nobody votes for a log that lacks what its own
has), so it can be applied everywhere, in order.

- ``node.py``         the participant: ``step``, ``tick``, ``propose``, ``read`` ... ``take_ready``. All
  control flow.
- ``election.py``     who leads. First a PreVote that disturbs nobody, then the vote, counted when durable.
- ``replication.py``  how entries reach the others (probe where logs agree, then pipeline), and when they
  commit.
- ``changes.py``      how members come and go, by joint consensus; ``membership.py`` has the values: their
  bytes, where the log changes them, what a change makes of them.
- ``transfer.py``     how the lead is handed over, on request and before a node stops.
- ``reads.py``        reads that see all that was acknowledged before them, without writing to the log;
  ``lease.py``: without a round, by clocks.
- ``log.py``, ``progress.py``, ``quorum.py``, ``roles.py``   the data the above work on.
- ``invariants.py``   what must always hold (Figure 3), as functions for tests and simulators.

Time and chance are arguments. Each turn, the holder feeds inputs in, takes one ``Ready``, and carries it out:
messages leave at once, promises when the disk has what they promise, committed entries are applied.

Where we differ from the paper
------------------------------
- Heartbeats are their own message, so that their answers never wait for a disk (an empty AppendEntries
  would).
- The leader's own disk write runs beside replication; it counts itself when the write is done (thesis
  10.2.1).
- PreVote (9.6), CheckQuorum (6.2) and loyalty to a live leader (4.2.3) are always on; they belong together.
- While the lead is handed over (3.10) the leader appends nothing; a vote request that comes of it says so,
  and loyal voters hear it.
- Voters change by joint consensus, always; there are no changes of a single server (4.1). A new voter is a
  learner first. C_new is appended by whoever leads when C_old,new is committed.
- Who is removed is sent to until it has heard that, but not for ever; a removed leader hands over (3.10).
- *Hunting*: a broken link to the leader starts the PreVotes within milliseconds. See ``election.py``.
- A refused AppendEntries carries a hint that skips whole terms, by one rule on both sides
  (``Log.last_at_or_below``).
- The leader tells followers that wait for a commit at once, others with the next message or after a short
  pause.

- *Leases* (6.4.1) are off by default: a follower is bound by its word (``LeaseGrant``), not by what it last
  heard, so that hunting can't undercut it. See ``lease.py``.

What is missing
---------------
Of the snapshots only their place in the log is here: their bytes are the caller's business.
"""

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.log import Log
from raftkv.consensus.messages import Envelope
from raftkv.consensus.node import Node
from raftkv.consensus.ready import Ready

__all__ = ["Envelope", "InvariantBroken", "Log", "Node", "Ready"]
