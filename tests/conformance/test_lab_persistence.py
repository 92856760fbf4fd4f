"""The scenarios of MIT 6.5840's Raft lab (3C) on the core: crashes and restarts, Figure 8, lost and late
messages, churn. Disks are instant or hold writes back; a crash loses what they hold back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from raftkv.consensus.types import Limits
from tests.conformance.lab import ELECTION_MS, Lab

seeds = pytest.mark.parametrize("seed", range(4))


def restart(lab: Lab, *names: str) -> None:
    for name in names:
        lab.crash(name)
    for name in names:
        lab.restart(name)


@seeds
def test_restarts_of_all_and_of_some(seed: int) -> None:
    """TestPersist13C: all at once, then a leader, then a follower that missed something."""
    lab = Lab(3, seed=seed)
    lab.one(b"11", 3)
    restart(lab, *lab.names)
    lab.one(b"12", 3)
    leader = lab.leader()
    restart(lab, leader)
    lab.one(b"13", 3)
    leader = lab.leader()
    lab.crash(leader)
    lab.one(b"14", 2)
    lab.restart(leader)
    lab.one(b"15", 3)
    follower = lab.others(lab.leader())[0]
    lab.crash(follower)
    lab.one(b"16", 2)
    lab.restart(follower)
    lab.one(b"17", 3)
    for server in lab.living:
        assert [e.data for e in server.applied if e.data] == [b"%d" % n for n in range(11, 18)]


@seeds
def test_alternating_majorities(seed: int) -> None:
    """TestPersist23C: of five, two crash, then the other three; the first two and one of those come back."""
    lab = Lab(5, seed=seed)
    expected = []
    for number in range(5):
        expected += [b"%d a" % number, b"%d b" % number, b"%d c" % number]
        lab.one(expected[-3], 5)
        leader = lab.leader()
        one, two, three, four = lab.others(leader)
        lab.crash(one)
        lab.crash(two)
        lab.one(expected[-2], 3)
        for name in (leader, three, four):
            lab.crash(name)
        lab.restart(one)
        lab.restart(two)
        lab.run(ELECTION_MS)
        assert lab.leads() is None, "two of five"
        lab.restart(four)
        lab.run(ELECTION_MS)
        lab.one(expected[-1], 3)
        lab.restart(three)
        lab.restart(leader)
    lab.one(b"1000", 5)
    for server in lab.living:
        assert [e.data for e in server.applied if e.data] == [*expected, b"1000"]


@seeds
def test_a_cut_off_leader_and_a_crashed_follower_come_back(seed: int) -> None:
    """TestPersist33C: the one that was cut off restarts and must not lead without what the other had."""
    lab = Lab(3, seed=seed)
    lab.one(b"101", 3)
    leader = lab.leader()
    one, other = lab.others(leader)
    lab.disconnect(other)
    lab.one(b"102", 2)
    lab.crash(leader)
    lab.crash(one)
    lab.connect()
    lab.restart(leader)
    lab.one(b"103", 2)
    lab.restart(one)
    lab.one(b"104", 3)
    for server in lab.living:
        assert [e.data for e in server.applied if e.data] == [b"101", b"102", b"103", b"104"]


@pytest.mark.parametrize("seed", range(8))
def test_figure_8(seed: int) -> None:
    """TestFigure83C: leaders crash right after they took something, some with it on disk, most without.

    NB: an entry a message, one at a time: so that an old entry can be on a majority before the new term's is.
    """
    lab = Lab(5, seed=seed, limits=Limits(max_append_bytes=1, max_inflight_messages=1))
    lab.one(b"first", 1)
    for server in lab.living:
        server.disk.slow = True
    for number in range(1000):
        leader = lab.leads()
        if leader is not None:
            lab.propose(leader, b"entry %d" % number)
        if lab.random.random() < 0.1:
            lab.run(lab.random.uniform(0, ELECTION_MS))
        else:
            lab.run(lab.random.uniform(0, 13))
        write_something(lab)
        if leader is not None and lab.servers[leader].node is not None and lab.random.random() < 0.5:
            lab.crash(leader, written=lab.random.randrange(3))
        if len(lab.living) < 3:
            dead = [name for name, server in lab.servers.items() if server.node is None]
            lab.restart(lab.random.choice(dead))
    assert len(lab.checks.leaders) > 10, "leaders changed"
    for server in lab.servers.values():
        server.disk.slow = False
        if server.node is None:
            lab.restart(server.node_id)
        lab.turn(server)
    lab.one(b"last", 5)
    assert len({tuple(server.disk.entries) for server in lab.living}) == 1


def write_something(lab: Lab) -> None:
    """Each disk gets on a little, or not."""
    for server in list(lab.living):
        for _ in range(lab.random.randrange(4)):
            if server.disk.queue and server.node is not None:
                lab.complete_write(server.node_id)


@seeds
def test_agreement_on_an_unreliable_network(seed: int) -> None:
    """TestUnreliableAgree3C: five at a time, thirty times; nothing twice, for no leader is lost for good."""
    lab = Lab(5, seed=seed, reliable=False)
    expected = []
    for number in range(30):
        batches = [b"%d.%d" % (number, each) for each in range(5)]
        expected += batches
        lab.all_of(batches, 1)
    lab.one(b"last", 5)
    for server in lab.living:
        assert {e.data for e in server.applied if e.data} == {*expected, b"last"}


@pytest.mark.parametrize("seed", range(8))
def test_figure_8_on_an_unreliable_network(seed: int) -> None:
    """TestFigure8Unreliable3C: leaders are cut off, later most replies come seconds late and out of order."""
    lab = Lab(5, seed=seed, reliable=False)
    lab.one(b"first", 1)
    for number in range(120):
        if number == 40:
            lab.reorders_long = True
        leader = lab.leads()
        for name in lab.names:
            lab.propose(name, b"%d at %s" % (number, name.encode()))
        if lab.random.random() < 0.1:
            lab.run(lab.random.uniform(0, ELECTION_MS))
        else:
            lab.run(lab.random.uniform(0, 13))
        if leader is not None and lab.random.random() < 0.5:
            lab.disconnect(leader)
        if len(lab.connected) < 3:
            lab.connect(lab.random.choice(sorted(lab.apart)))
    lab.connect()
    lab.reorders_long = False
    lab.one(b"last", 5)
    assert max(lab.checks.leaders) > 1, "leaders changed"
    assert len({tuple(server.disk.entries) for server in lab.living}) == 1


@dataclass
class Churner:
    """A client that offers one value after the other, at any server, again after a while; and notes those
    that it saw applied.
    """

    lab: Lab
    name: bytes
    number: int = 0
    due_ms: float = 0.0
    seen: list[bytes] = field(default_factory=list)

    def step(self) -> None:
        if self.lab.holders(self.value):
            self.seen.append(self.value)
            self.number += 1
            self.due_ms = 0.0
        if self.lab.now_ms >= self.due_ms and self.lab.living:
            self.lab.propose(self.lab.random.choice(self.lab.living).node_id, self.value)
            self.due_ms = self.lab.now_ms + 100

    @property
    def value(self) -> bytes:
        return b"%s %d" % (self.name, self.number)


@pytest.mark.parametrize("reliable", [True, False], ids=["TestReliableChurn3C", "TestUnreliableChurn3C"])
@seeds
def test_churn(reliable: bool, seed: int) -> None:
    """What a client saw committed is in the final log, whoever crashed or was cut off meanwhile."""
    lab = Lab(5, seed=seed, reliable=reliable)
    clients = [Churner(lab, b"%d" % number) for number in range(3)]
    for _ in range(20):
        victim = lab.random.choice(lab.names)
        if lab.random.random() < 0.2:
            lab.disconnect(victim)
        elif lab.random.random() < 0.5:
            lab.connect(victim)
            if lab.servers[victim].node is None:
                lab.restart(victim)
        elif len(lab.living) > 3 and lab.servers[victim].node is not None:
            lab.crash(victim)
        for _ in range(10):
            for client in clients:
                client.step()
            lab.run(lab.random.uniform(5, ELECTION_MS / 8))
    for name, server in lab.servers.items():
        if server.node is None:
            lab.restart(name)
    lab.connect()
    lab.one(b"last", 5)
    seen = {value for client in clients for value in client.seen}
    assert len(seen) >= 10
    for server in lab.living:
        assert seen <= {entry.data for entry in server.applied}
