"""Waiting: for slow confirmations, for what is committed to be applied, for a leader with room.

What the simulator found, as small cases.
"""

from __future__ import annotations

from raftkv.consensus.messages import AppendEntries, Envelope, ReadIndexReply
from raftkv.consensus.types import Limits
from raftkv.errors import Outcome, TimedOut
from raftkv.kv.results import PutResult
from tests.replica.harness import Cluster


def test_an_answer_slower_than_resending_is_still_taken() -> None:
    """Else reads would never succeed where the leader takes longer than ``resend_ms``. And it vouches for
    when it was first asked for: what came since may not be in it.
    """
    cluster = Cluster()
    cluster.elect()
    follower = cluster.followers[0]
    send = cluster.send
    slow: list[tuple[float, Envelope]] = []

    def send_slowly(envelope: Envelope) -> None:
        if isinstance(envelope.message, ReadIndexReply):
            slow.append((cluster.now_ms + 350, envelope))
        else:
            send(envelope)

    cluster.send = send_slowly  # type: ignore[method-assign]
    asked_ms = cluster.now_ms
    follower.barrier("r")
    follower.turn()
    for _ in range(15):
        cluster.advance(100)
        while slow and slow[0][0] <= cluster.now_ms:
            send(slow.pop(0)[1])
        cluster.settle()
    assert follower.answer("r") is None
    assert follower.replica.vouched_ms == asked_ms


def test_a_node_is_as_fresh_as_what_it_has_applied() -> None:
    """After a restart it hears at once what is committed, and has to apply all of it first."""
    cluster = Cluster()
    cluster.elect()
    for i in range(5):
        cluster.leader.put(b"%d" % i, b"x" * 100)
        cluster.settle()
    follower = cluster.followers[0]
    cluster.node_limits = Limits(max_apply_bytes=1)
    follower.start()
    assert follower.replica.fresh_ms == float("-inf")
    began_ms = cluster.now_ms
    while follower.replica.node.fresh_ms < began_ms:
        cluster.now_ms += 1
        for server in cluster.living:
            if server is not follower:
                server.turn()
        while cluster.queue:
            envelope = cluster.queue.popleft()
            cluster[envelope.receiver].replica.step(envelope)
    replica = follower.replica
    while True:
        replica.apply(replica.take_ready())
        if not replica.has_more:
            break
        assert replica.fresh_ms == float("-inf"), f"{replica.last_applied} of {replica.node.commit_index}"
    assert replica.fresh_ms == replica.node.fresh_ms >= began_ms
    assert follower.machine.store.revision == 5


def test_who_leaves_a_batch_that_others_wait_for_is_told_that_its_outcome_is_open() -> None:
    """No leader has taken the batch yet, but one will, with all that is in it."""
    cluster = Cluster(node_limits=Limits(max_unsettled_bytes=100))
    leader = cluster.elect()
    cluster.drop = {AppendEntries}
    leader.put(b"large", b"x" * 200)
    cluster.settle()
    leader.put(b"impatient", timeout_ms=100)
    leader.put(b"patient")
    cluster.advance(200)
    cluster.drop = set()
    cluster.advance(1000)
    assert leader.answer(b"patient") == PutResult(3, 1)
    assert leader.machine.store.get(b"impatient") is not None
    answer = leader.answer(b"impatient")
    assert isinstance(answer, TimedOut)
    assert answer.outcome is Outcome.UNKNOWN


def test_where_the_leader_has_room_for_one_batch_everyone_has_its_turn() -> None:
    """Handed on again at the same moments, always the same one would be late."""
    cluster = Cluster(7, node_limits=Limits(max_unsettled_bytes=1))
    cluster.elect()
    writers = cluster.followers
    for follower in writers:
        follower.put(follower.name.encode(), timeout_ms=4000)
    cluster.advance(4100)
    answers = [follower.answer(follower.name.encode()) for follower in writers]
    assert all(isinstance(answer, PutResult) for answer in answers), answers
