"""The rare paths that a long run must have taken, by the names under which the simulator counts them.

A simulator that never gets there proves nothing about them; ``missed`` says which those are.
"""

from __future__ import annotations

from collections.abc import Mapping

from raftkv.sim.plan import FAULTS

PROBES = (
    *(f"fault {kind}" for kind in FAULTS),
    "frame lost",
    "frame duplicated",
    "frame overtaken",
    "link full",
    "frame cut off",
    "frame coded",
    "connection lost with notice",
    "connection lost without notice",
    "restart",
    "ambushed",
    "torn tail dropped",
    "unsynced batch survived",
    "damage refused",
    "disk failure stopped a node",
    "start failed on a bad disk",
    "conflicting suffix cut",
    "PreVote refused",
    "vote refused",
    "append refused",
    "leader replaced",
    "lead handed over",
    "lead not handed over",
    "told to stand",
    "TimeoutNow ignored",
    "rolling restart completed",
    "stopped in order",
    "stopped with requests waiting",
    "batch proposed to a follower",
    "duplicate batch dropped",
    "read granted",
    "read confirmed late",
    "read under the lease",
    "read asked for under the leader's lease",
    "condition refused",
    "request not applied",
    "request unknown",
    "segment begun",
    "segment dropped",
    "snapshot taken",
    "snapshot not written",
    "snapshot overtaken by one installed",
    "snapshot installed",
    "snapshot not needed",
    "snapshot agreed with the log",
    "snapshot of second generation",
    "snapshot found damaged",
    "start from a snapshot",
    "older snapshot used",
    "log used without its snapshot",
    "stream cut in the middle",
    "stale-term stream refused",
    "struck amid a snapshot",
    "fault change_members",
    "fault trap",
    "members changed",
    "change of members answered",
    "change of members refused",
    "lease ended",
    "past read",
    "past compacted",
    "watch resumed elsewhere",
    "watch compacted",
    "token repeated",
    "token of another request refused",
    "rejected: no_such_lease",
    "rejected: lease_exists",
    "rejected: not_a_number",
)


def missed(probes: Mapping[str, int]) -> list[str]:
    return [name for name in PROBES if not probes.get(name)]
