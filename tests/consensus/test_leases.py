"""The leader's lease (thesis 6.4.1): what a voter's word means, and that each rule of it is needed.

The golden scripts in ``tests/scripts/leases`` tell it from the leader's side.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raftkv.consensus import InvariantBroken
from raftkv.consensus.messages import (
    Heartbeat,
    HeartbeatReply,
    LeaseGrant,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.consensus.types import Index, NodeId, Term, Timing
from raftkv.sim.ablation import Ablation
from raftkv.sim.broken_leases import ALL
from tests.consensus.chaos_leases import play
from tests.consensus.single import Single, messages
from tests.scripts.runner import rendered

LEASES = Timing(lease_ms=200)
SCRIPTS = sorted((Path(__file__).parents[1] / "scripts" / "leases").glob("*.txt"))
SEEDS = 12


def follower() -> Single:
    """n1, free of what an earlier run may have promised; it follows n2 in term 1 and has just given its
    word.
    """
    single = Single(timing=LEASES)
    single.now_ms = 200.0
    single.node.tick(single.now_ms)
    sent = single.receive("n2", Heartbeat(Index(0), Index(0), 7), term=1)
    assert [each.message for each in sent] == [LeaseGrant(7, 200), HeartbeatReply(7)]
    return single


def request(*, wished: bool = False) -> RequestVote:
    return RequestVote(Index(0), Term(0), wished)


def test_who_is_bound_votes_for_nobody_whatever_its_link_says() -> None:
    single = follower()
    single.node.peer_lost(NodeId("n2"))
    single.wait(199)
    assert single.receive("n3", request(), term=2) == []
    assert single.node.current_term == 1
    answers = messages(single.receive("n3", PreVote(Term(2), Index(0), Term(0)), term=1), PreVoteReply)
    assert answers == [PreVoteReply(Term(2), granted=False)]
    single.now_ms += 1
    single.node.clock(single.now_ms)
    assert messages(single.receive("n3", request(), term=2), RequestVoteReply) == [RequestVoteReply(True)]


def test_who_is_bound_does_not_stand_and_hunts_when_it_is_free() -> None:
    single = follower()
    single.node.peer_lost(NodeId("n2"))
    assert single.wait(199) == []
    assert len(messages(single.wait(1), PreVote)) == 2


def test_a_higher_term_frees_nobody() -> None:
    single = follower()
    single.receive("n3", HeartbeatReply(0), term=2)
    assert single.node.current_term == 2
    assert single.receive("n3", request(), term=3) == []
    assert single.wait(199) == []
    assert single.node.current_term == 2


def test_its_leader_may_wish_for_another() -> None:
    single = follower()
    sent = single.receive("n3", request(wished=True), term=2)
    assert messages(sent, RequestVoteReply) == [RequestVoteReply(True)]
    assert len(messages(follower().receive("n2", TimeoutNow(), term=1), RequestVote)) == 2


def test_a_start_binds_as_long_as_any_earlier_word_may_last() -> None:
    single = Single(timing=LEASES)
    single.wait(199)
    assert single.receive("n3", request(), term=1) == []
    single.wait(1)
    assert messages(single.receive("n3", request(), term=1), RequestVoteReply) == [RequestVoteReply(True)]


def test_a_lone_voter_waits_too() -> None:
    """It may have been one of two when it gave its word."""
    single = Single(size=1, timing=LEASES)
    single.wait(199)
    assert single.node.leader is None
    single.wait(1)
    assert single.node.leader == "n1"


def test_nobody_is_bound_without_leases() -> None:
    single = Single()
    sent = single.receive("n2", Heartbeat(Index(0), Index(0), 7), term=1)
    assert [each.message for each in sent] == [HeartbeatReply(7)]
    single.node.peer_lost(NodeId("n2"))
    assert messages(single.receive("n3", request(), term=2), RequestVoteReply) == [RequestVoteReply(True)]


def test_the_settings_are_checked() -> None:
    for wrong in ({"lease_ms": 301}, {"lease_ms": -1}, {"max_clock_drift": 1}, {"max_clock_drift": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Timing(**wrong)  # type: ignore[arg-type]


def play_seeds(first: int = 0, count: int = SEEDS) -> int:
    """How often somebody was seen to have a lease."""
    seen = 0
    for seed in range(first, first + count):
        try:
            seen += play(seed, steps=200).cluster.checks.leases
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    return seen


def test_nobody_has_a_lease_while_another_leads() -> None:
    """Random runs under all faults, changes of members and drifting clocks; see ``chaos_leases.py``."""
    assert play_seeds() > 100


def test_random_runs_miss_it() -> None:
    """The rule that costs the most is also the one whose lack shows at once."""
    rule = "a broken link frees a voter"
    with Ablation(rule, (ALL[rule],)).applied(), pytest.raises(InvariantBroken, match="lease"):
        play_seeds()


def differs(path: Path) -> bool:
    script = path.read_text(encoding="utf-8")
    try:
        return rendered(script) != script
    except InvariantBroken:
        return True


def test_the_scripts_play_as_they_are_written() -> None:
    assert not any(differs(path) for path in SCRIPTS)


@pytest.mark.parametrize("rule", ALL)
def test_each_rule_is_missed(rule: str) -> None:
    with Ablation(rule, (ALL[rule],)).applied():
        if rule == "another term frees a voter":
            with pytest.raises(AssertionError):
                test_a_higher_term_frees_nobody()
        else:
            assert any(differs(path) for path in SCRIPTS)
