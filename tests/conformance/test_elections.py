"""Elections of whole clusters: dead and better peers, drawn timeouts, cuts that leave few who can lead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftkv.consensus import Envelope
from raftkv.consensus.messages import RequestVote, RequestVoteReply
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import Timing
from tests.consensus.harness import Cluster, entries

ROUNDS = 600


@pytest.mark.parametrize(
    ("size", "dead", "better", "role", "term"),
    [
        (1, 0, 0, Leader, 1),
        (2, 0, 0, Leader, 1),
        (2, 1, 0, PreCandidate, 0),
        (3, 0, 0, Leader, 1),
        (3, 1, 0, Leader, 1),
        (3, 2, 0, PreCandidate, 0),
        (4, 1, 0, Leader, 1),
        (4, 2, 0, PreCandidate, 0),
        (5, 2, 0, Leader, 1),
        (5, 3, 0, PreCandidate, 0),
        # those with a better log refuse, and let it know their later term
        (3, 0, 1, Leader, 3),
        (3, 0, 2, Follower, 2),
        (3, 1, 1, Follower, 2),
        (5, 0, 2, Leader, 3),
        (5, 1, 2, Follower, 2),
        (5, 0, 3, Follower, 2),
    ],
)
def test_outcomes_with_dead_and_better_peers(
    size: int, dead: int, better: int, role: type, term: int
) -> None:
    """n1 asks; the last ``dead`` are down, the first ``better`` peers have an entry of term 2.

    NB: a refusal may carry a later term: n1 takes it, waits another timeout, and asks again.
    """
    names = [f"n{i}" for i in range(1, size + 1)]
    cluster = Cluster(names, logs={name: entries(2) for name in names[1 : 1 + better]})
    for name in names[size - dead :]:
        cluster.crash(name)
    cluster.campaign("n1")
    cluster.settle()
    if role is Leader and not isinstance(cluster.node("n1").role, Leader):
        cluster.campaign("n1")
        cluster.settle()
    assert isinstance(cluster.node("n1").role, role)
    assert cluster.node("n1").current_term == term
    assert cluster.leaders == (["n1"] if role is Leader else [])


def candidates(size: int) -> Iterator[list[float]]:
    """After how many ms each of ``size`` candidates, all of one moment, stands again; ``ROUNDS`` times."""
    for seed in range(ROUNDS):
        cluster = Cluster([f"n{i}" for i in range(1, size + 1)], seed=seed)
        cluster.now_ms = Timing().election_timeout_max_ms
        drop_votes(cluster)
        for server in cluster.living:
            cluster.tick(server.node_id)
        cluster.settle()
        standing = [server.node for server in cluster.living if server.node]
        assert all(isinstance(node.role, Candidate) for node in standing)
        yield [node.due_ms - cluster.now_ms for node in standing]


def drop_votes(cluster: Cluster) -> None:
    send = cluster.send

    def send_but_votes(envelope: Envelope) -> None:
        if not isinstance(envelope.message, RequestVote | RequestVoteReply):
            send(envelope)

    cluster.send = send_but_votes  # type: ignore[method-assign]


def test_candidates_timeouts_are_spread_over_the_whole_interval() -> None:
    """5.2: each candidate restarts its randomized election timeout at the start of an election."""
    timing = Timing()
    low, high = timing.election_timeout_min_ms, timing.election_timeout_max_ms
    draws = [each for waits in candidates(3) for each in waits]
    assert all(low <= each <= high for each in draws)
    tenth = (high - low) / 10
    assert {int((each - low) // tenth) for each in draws} >= set(range(10))


def test_candidates_seldom_stand_again_at_once() -> None:
    """Two that split a vote ask again within a millisecond of each other in few rounds."""
    close = 0
    for waits in candidates(5):
        first, second, *_ = sorted(waits)
        close += second - first < 1
    assert close < ROUNDS / 10


def only(cluster: Cluster, *pairs: tuple[str, str]) -> None:
    """From now on, those who hear each other are these and nobody else."""
    names = list(cluster.servers)
    for one in names:
        for other in names:
            if one < other and (one, other) not in pairs and (other, one) not in pairs:
                cluster.cut(one, other)
                for name, peer in ((one, other), (other, one)):
                    cluster.peer_lost(name, peer)


def constrained(behind: tuple[str, ...], seed: int) -> Cluster:
    """n3 led and is cut off from all; the others hear only n1. ``behind`` lack its last committed entry."""
    cluster = Cluster([f"n{i}" for i in range(1, 6)], seed=seed)
    cluster.elect("n3")
    for name in behind:
        cluster.isolate(name)
    cluster.propose("n3", b"a")
    cluster.settle()
    assert cluster.node("n3").commit_index == 2
    cluster.heal()
    cluster.links.clear()
    only(cluster, ("n1", "n2"), ("n1", "n4"), ("n1", "n5"))
    return cluster


@pytest.mark.parametrize("seed", range(5))
def test_a_hub_with_a_log_that_a_majority_accepts_is_elected(seed: int) -> None:
    """E10, constrained election: only n1 hears a majority, and n1 has what was committed."""
    cluster = constrained(("n4", "n5"), seed)
    assert cluster.run(10_000, lambda: cluster.leaders == ["n1"])
    assert cluster.propose("n1", b"b")
    there = [cluster.servers[name].applied for name in ("n1", "n2", "n4", "n5")]
    assert cluster.run(1000, lambda: all(applied and applied[-1].data == b"b" for applied in there))


@pytest.mark.parametrize("seed", range(5))
def test_a_hub_with_a_stale_log_elects_nobody_and_breaks_nothing(seed: int) -> None:
    """E10, constrained election: n1 alone hears a majority, and lacks what n2 and n3 and n4 have on disk.

    Nobody may lead: who has the entry hears too few. Raft has no way out of this shape (docs/guarantees.md);
    what counts is that nothing is lost, and that one more link ends it.
    """
    cluster = constrained(("n1", "n5"), seed)
    cluster.run(5_000)
    assert cluster.leaders == []
    assert max(server.node.current_term for server in cluster.living if server.node) < 20, "no storm of terms"
    cluster.cuts -= {("n2", "n4"), ("n4", "n2")}
    assert cluster.run(10_000, lambda: bool(cluster.leaders))
    assert cluster.leaders in (["n2"], ["n4"])
    cluster.heal()
    applied = [server.applied for server in cluster.servers.values()]
    assert cluster.run(10_000, lambda: all(len(each) >= 3 for each in applied))
    assert {each[1].data for each in applied} == {b"a"}


@pytest.mark.parametrize("seed", range(5))
def test_those_who_lost_the_leader_do_not_take_turns_with_it(seed: int) -> None:
    """E10, chained: n4 and n5 hear all but the leader n1; n2 and n3 hear all, and stay loyal."""
    cluster = Cluster([f"n{i}" for i in range(1, 6)], seed=seed)
    cluster.elect("n1")
    for name in ("n4", "n5"):
        cluster.cut("n1", name)
        cluster.peer_lost(name, "n1")
        cluster.peer_lost("n1", name)
    cluster.run(5_000)
    assert cluster.leaders == ["n1"]
    assert {server.node.current_term for server in cluster.living if server.node} == {1}
    assert cluster.propose("n1", b"a")
    assert cluster.run(1000, lambda: cluster.node("n1").commit_index == 2)
