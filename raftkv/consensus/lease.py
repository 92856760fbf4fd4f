"""The leader's lease (thesis 6.4.1): for how long nobody else can be elected, so that reads need no round.

How. With ``timing.lease_ms`` a follower that answers a round of heartbeats gives its word (``LeaseGrant``):
for that long by its own clock it votes for nobody and doesn't stand. A leader has the lease until the words
of a majority, of each half while the membership is joint, run out. It counts each from when it began to
*send* that round, which was before the follower heard it, and only ``(1 - d) / (1 + d)`` of it: d is
``max_clock_drift``, its clock may be as slow as 1 - d while the follower's is as fast as 1 + d.

Why that is enough. Who is elected in a later term has the votes of a majority, and shares a voter with those
who gave their word (with a membership that has no majority in common with ours nobody can win whose log lacks
what we committed, and ours has it). That voter votes only when it is free, and then our lease is over. So at
a moment within the lease whatever anybody was told to be committed is committed here, once an entry of our
own term is. The clock is read after the read has come, hence it doesn't matter how late the answer leaves.

What would free a voter too early, and why it doesn't:

- *Its link breaks*, and it hunts: the word stands apart from the role (``Core.bound_until_ms``), links and
  terms change nothing about it. This is what leases cost: without them a leader whose links break is replaced
  within milliseconds, with them ``lease_ms`` later.
- *It restarts* and has forgotten: a node is bound for ``lease_ms`` from its start. NB: by its present
  setting; whoever shortens the lease must let the longer one pass before the node starts again.
- *The leader wishes it*: voters hear whom the leader told to stand (``TimeoutNow``), bound or not. So a
  leader that has told somebody has no lease any more in its term, for what it sent may arrive at any time.
  Such a candidate can win the term after ours and no other: who leads that one has its voters' votes.
- *Another's higher term*: a voter that is bound doesn't hear requests for votes; by what else it hears it may
  come to a higher term, and stays bound in it.
- *Forced recovery* makes another cluster of what one node has. The others must have ended for good before.

Drift is the one assumption about clocks in all of this, and only these reads rest on it. A machine that is
suspended, or a guest whose clock stands still while it doesn't run, drifts without bounds.
"""

from __future__ import annotations

from raftkv.consensus.core import Core
from raftkv.consensus.messages import LeaseGrant
from raftkv.consensus.progress import Progress
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import NodeId, Timing


def bind(core: Core, leader: NodeId, number: int) -> None:
    """The follower: give ``leader`` our word with the answer to its round ``number``, if we use leases."""
    lease_ms = core.timing.lease_ms
    if lease_ms:
        core.bound_until_ms = max(core.bound_until_ms, core.now_ms + lease_ms)
        core.send(leader, LeaseGrant(number, int(lease_ms)))


def granted(core: Core, leader: Leader, progress: Progress, grant: LeaseGrant) -> None:
    """The leader: a follower's word came. Only for a round that isn't confirmed yet: of others we no longer
    know when they began.
    """
    for number, began_ms in leader.rounds:
        if number == grant.round:
            until_ms = counted_from(began_ms, core.now_ms) + certain_ms(grant.lease_ms, core.timing)
            progress.bound_until_ms = max(progress.bound_until_ms, until_ms)


def counted_from(began_ms: float, came_ms: float) -> float:
    """From when a word counts, by the leader's clock. NB: from when its round began, not from when the word
    came, which may be at any time after it was given."""
    return began_ms


def certain_ms(lease_ms: float, timing: Timing) -> float:
    """How long of our clock is over before ``lease_ms`` of anybody else's can be."""
    return lease_ms * (1 - timing.max_clock_drift) / (1 + timing.max_clock_drift)
