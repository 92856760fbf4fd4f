"""Seeded random runs as in ``chaos_members.py`` with leases, clocks that drift, and reads that trust them.

After every turn: while anybody has its lease nobody leads a later term (``Checks.leases_hold``).
"""

from __future__ import annotations

from raftkv.consensus.types import Timing
from tests.consensus.chaos_members import MembersChaos

DRIFT = Timing().max_clock_drift


class LeasesChaos(MembersChaos):
    def __init__(self, seed: int, steps: int = 300, lease_ms: float = 300.0) -> None:
        super().__init__(seed, steps, Timing(lease_ms=lease_ms))
        pick = self.random.choice
        self.cluster.exact_clocks = True  # whoever has leases reads its clock after what came, not before
        for name in (f"n{number}" for number in range(1, 20)):
            self.cluster.rates[name] = pick([1 - DRIFT, 1.0, 1 + DRIFT])
        for server in self.cluster.living:
            self.cluster.restart(server.node_id)
        self.mood += [
            (self.read_by_lease, pick([5, 30])),
            (self.transfer, pick([0, 0.5, 3])),
            (self.behead, pick([0.5, 2])),
            (self.catch_up, pick([2, 10])),
        ]

    def read_by_lease(self) -> None:
        self.next_id += 1
        leaders = self.cluster.leaders
        name = self.random.choice(leaders) if leaders and self.random.random() < 0.7 else self._living()
        if name:
            self.cluster.read(name, self.next_id, by_lease=True)

    def transfer(self) -> None:
        if leaders := self.cluster.leaders:
            self.cluster.transfer(leaders[-1], self.random.choice(self.names))

    def behead(self) -> None:
        """The leader's links break, and it lives on without noticing; the others make another if they may."""
        if leaders := self.cluster.leaders:
            self.cut_off_the_leader()
            self.cluster.run(
                self.random.choice([20, 200, 400]), lambda: self.cluster.leaders[-1:] != leaders[-1:]
            )

    def catch_up(self) -> None:
        """A while in which all is delivered: else there is hardly ever a leader that everybody follows."""
        self.cluster.run(self.random.choice([5, 60]))

    def _agreed(self) -> bool:
        """NB: a leader that hands over drops what is forwarded to it."""
        return super()._agreed() and all(
            self.cluster.node(name).hands_over_to is None for name in self.cluster.leaders
        )


def play(seed: int, steps: int = 300, lease_ms: float = 300.0) -> LeasesChaos:
    chaos = LeasesChaos(seed, steps, lease_ms)
    chaos.run()
    return chaos
