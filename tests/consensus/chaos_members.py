"""Seeded random runs as in ``chaos.py``, in which members are added, promoted, moved and removed, too, by
force or not, while all the rest goes wrong.
"""

from __future__ import annotations

from raftkv.consensus.roles import Leader
from raftkv.consensus.types import (
    AddLearner,
    Change,
    Entry,
    EntryKind,
    Membership,
    Move,
    NodeId,
    Promote,
    Remove,
    Timing,
    Verdict,
)
from tests.consensus.chaos import HEALED_WITHIN_MS, Chaos
from tests.consensus.harness import Server
from tests.consensus.members import membership_text

MAX_SERVERS = 8
UNDISTURBED_MS = 2_000.0  # virtual: several election timeouts


class MembersChaos(Chaos):
    def __init__(self, seed: int, steps: int = 300, timing: Timing = Timing()) -> None:
        super().__init__(seed, steps, timing)
        pick = self.random.choice
        self.mood += [(self.join, pick([0.5, 2])), (self.change, pick([4, 15, 30]))]
        observed = self.cluster.observe

        def observe(server: Server, ready: object) -> None:
            observed(server, ready)  # type: ignore[arg-type]
            assert server.node is not None
            log = server.node.log
            assert server.node.membership_since <= log.last_index, "in force, and not in the log"

        self.cluster.observe = observe

    def join(self) -> None:
        if len(self.names) < MAX_SERVERS:
            name = f"n{len(self.names) + 1}"
            self.names.append(name)
            self.cluster.join(name)

    def change(self) -> None:
        leaders = self.cluster.leaders
        name = leaders[-1] if leaders and self.random.random() < 0.5 else self._living()
        if name:
            self.cluster.change(name, self._any_change(), force=self.random.random() < 0.3)

    def _any_change(self) -> Change:
        node = NodeId(self.random.choice(self.names))
        replaces = NodeId(self.random.choice(self.names)) if self.random.random() < 0.3 else None
        kinds: list[Change] = [
            AddLearner(node, f"{node}:1", self.random.random() < 0.7, replaces),
            Promote(node),
            Remove(node),
            Move(node, f"{node}:{self.random.randrange(1, 3)}"),
        ]
        return self.random.choices(kinds, [4, 1, 3, 1])[0]

    # -- afterwards ----------------------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """The one that is decided last."""
        return self.cluster.checks.membership

    def must_recover(self) -> None:
        """The members are live again; whoever else there is disturbs nobody."""
        everybody = self.names
        cluster = self.cluster
        cluster.heal()
        for server in cluster.servers.values():
            server.disk.slow = False
            if server.node is None:
                cluster.restart(server.node_id)
            cluster.turn(server)
        assert cluster.run(HEALED_WITHIN_MS, self._settled), f"no recovery: {self._picture()}"
        self.names = list(self.membership.members)
        super().must_recover()
        leader = next(name for name in self.names if isinstance(cluster.node(name).role, Leader))
        term = cluster.node(leader).current_term
        cluster.run(UNDISTURBED_MS)
        assert isinstance(cluster.node(leader).role, Leader), f"{leader} was deposed: {self._picture()}"
        assert cluster.node(leader).current_term == term
        self.names = everybody

    def _settled(self) -> bool:
        """Whether the members agree, and nothing of a change is left to do."""
        self_names, self.names = self.names, list(self.membership.members)
        try:
            leads = [name for name in self.names if isinstance(self.cluster.node(name).role, Leader)]
            return (
                self._agreed()
                and not self.membership.is_joint
                and self.cluster.node(leads[0]).membership == self.membership
                and not any(each.promote for each in self.membership.learners)
            )
        finally:
            self.names = self_names

    def _applied_everywhere(self, batch: bytes) -> bool:
        return all(
            any(each.data == batch for each in self.cluster.servers[name].applied) for name in self.names
        )

    def _picture(self) -> str:
        known = [f"{name} {membership_text(self.cluster.node(name).membership)}" for name in self.names]
        return "\n".join([super()._picture(), f"decided: {membership_text(self.membership)}", *known])

    # -- looking -------------------------------------------------------------------------------------------

    def configs(self) -> list[Entry]:
        return [each for each in self.cluster.checks.committed if each.kind is EntryKind.CONFIG]

    def verdicts(self) -> list[Verdict]:
        return [answer.reply.verdict for server in self.cluster.servers.values() for answer in server.replies]


def play(seed: int, steps: int = 300) -> MembersChaos:
    chaos = MembersChaos(seed, steps)
    chaos.run()
    return chaos
