"""Raft paper, section 5.3: log replication."""

from __future__ import annotations

import pytest

from raftkv.consensus import Envelope, InvariantBroken
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    Heartbeat,
    Propose,
    RequestVoteReply,
)
from raftkv.consensus.progress import Mode
from raftkv.consensus.roles import Leader
from raftkv.consensus.types import GroupId, HardState, Index, Limits, Mark, NodeId, Term
from tests.consensus.harness import Cluster, entries, entry
from tests.consensus.single import Single, append, messages

N2, N3 = NodeId("n2"), NodeId("n3")


def test_the_leader_appends_and_sends_in_parallel() -> None:
    """The leader appends the command to its log, then issues AppendEntries RPCs in parallel."""
    single = Single(5, instant_disk=True)
    single.lead()
    for peer in single.peers:
        single.acknowledge(peer, 1)
    single.node.propose([b"a", b"b"])
    sent = single.end_turn()
    requests = [(each.receiver, each.message) for each in sent if isinstance(each.message, AppendEntries)]
    assert [receiver for receiver, _ in requests] == single.peers
    for _, request in requests:
        assert (request.prev_log_index, request.prev_log_term) == (1, 1)
        assert [(each.index, each.term, each.data) for each in request.entries] == [
            (2, 1, b"a"),
            (3, 1, b"b"),
        ]


@pytest.mark.parametrize(
    ("size", "acks", "committed"),
    [
        (1, 0, True),
        (3, 0, False),
        (3, 1, True),
        (3, 2, True),
        (5, 1, False),
        (5, 2, True),
        (5, 3, True),
        (5, 4, True),
        (7, 2, False),
        (7, 3, True),
        (7, 6, True),
        (2, 0, False),
        (2, 1, True),
        (4, 1, False),
        (4, 2, True),
    ],
)
def test_an_entry_is_committed_once_a_majority_has_it(size: int, acks: int, committed: bool) -> None:
    """A log entry is committed once the leader that created it has replicated it on a majority."""
    single = Single(size)
    if size == 1:
        single.time_out()
    else:
        single.lead()
    for peer in single.peers[:acks]:
        single.acknowledge(peer, 1)
    assert (single.node.commit_index == 1) is committed
    assert [each.index for each in single.applied] == ([1] if committed else [])


def test_the_leader_counts_itself_only_when_its_own_disk_has_the_entry() -> None:
    """Law 3 (L15): two acknowledgements of five and the leader's own unwritten entry are no majority."""
    single = Single(5, instant_disk=False)
    single.stand()
    single.write_done()
    for peer in ("n2", "n3"):
        single.receive(peer, RequestVoteReply(granted=True))
    assert isinstance(single.node.role, Leader)
    for peer in ("n2", "n3"):
        single.acknowledge(peer, 1)
    assert single.node.commit_index == 0
    while single.node.commit_index == 0:
        single.write_done()
    assert single.node.commit_index == 1


def test_a_late_completion_of_an_older_term_is_not_counted() -> None:
    """L14, the ABA race: what was written in term 1 says nothing about the same indexes in term 2."""
    single = Single(3)
    single.lead()
    assert single.leader_role.durable_index == 1
    single.node.persisted(Mark(Term(0), Index(99)))
    assert single.leader_role.durable_index == 1


def test_the_leader_tells_followers_the_commit_index() -> None:
    """The leader keeps track of the highest committed index and includes it in future AppendEntries."""
    single = Single()
    single.lead()
    single.acknowledge("n2", 1)
    single.node.propose([b"a"])
    requests = messages(single.end_turn(), AppendEntries, "n2")
    assert [each.leader_commit for each in requests if isinstance(each, AppendEntries)] == [1]
    (notice,) = messages(single.wait(50), Heartbeat, "n2")[-1:]
    assert notice == Heartbeat(Index(1), Index(1), 2)


def test_followers_apply_in_log_order_up_to_the_leaders_commit() -> None:
    """Once a follower learns that an entry is committed, it applies it (in log order)."""
    single = Single()
    for commit in (0, 2, 2, 1, 3):
        single.receive("n2", append(0, 0, entries(1, 1, 1), commit=commit), term=1)
    assert [each.index for each in single.applied] == [1, 2, 3]


def test_the_commit_index_goes_no_further_than_the_request_vouches_for() -> None:
    """commitIndex = min(leaderCommit, index of last NEW entry) (Figure 2; L3, L4)."""
    single = Single(log=[1, 1, 1, 1])
    single.receive("n2", append(1, 1, entries(1, first=2), commit=9), term=2)
    assert single.node.commit_index == 2
    single.receive("n2", append(1, 1, commit=9), term=2)
    assert single.node.commit_index == 2


def test_a_heartbeat_commits_no_further_than_the_known_match() -> None:
    single = Single(log=[1, 1, 1, 1])
    single.receive("n2", Heartbeat(Index(9), Index(2), 1), term=2)
    assert single.node.commit_index == 2
    single.receive("n2", Heartbeat(Index(1), Index(1), 2), term=2)
    assert single.node.commit_index == 2, "it never goes back"


@pytest.mark.parametrize(
    ("log", "prev", "prev_term", "answer"),
    [
        ([1, 1, 2], 0, 0, AppendEntriesReply(Index(0))),
        ([1, 1, 2], 2, 1, AppendEntriesReply(Index(2))),
        ([1, 1, 2], 3, 2, AppendEntriesReply(Index(3))),
        ([1, 1, 2], 4, 2, AppendEntriesRefusal(Index(4), Index(3), Term(2))),
        ([1, 1, 2], 9, 3, AppendEntriesRefusal(Index(9), Index(3), Term(2))),
        ([1, 1, 2], 3, 1, AppendEntriesRefusal(Index(3), Index(2), Term(1))),
        ([1, 1, 2], 2, 2, AppendEntriesRefusal(Index(2), Index(2), Term(1))),
        ([2, 2, 2], 2, 1, AppendEntriesRefusal(Index(2), Index(0), Term(0))),
        ([], 1, 1, AppendEntriesRefusal(Index(1), Index(0), Term(0))),
    ],
)
def test_the_consistency_check(log: list[int], prev: int, prev_term: int, answer: object) -> None:
    """If the follower does not find an entry in its log with the same index and term, it refuses."""
    single = Single(log=log)
    sent = single.receive("n2", append(prev, prev_term), term=4)
    assert [each.message for each in sent] == [answer]
    assert single.terms == log


@pytest.mark.parametrize(
    ("log", "prev", "new", "result"),
    [
        ([1, 1, 1], 3, [2], [1, 1, 1, 2]),  # new entries are appended
        ([1, 1, 1], 2, [2], [1, 1, 2]),  # a conflicting one is replaced
        ([1, 1, 1], 1, [2, 2], [1, 2, 2]),  # with all that follow it
        ([1, 1, 1], 0, [2], [2]),
        ([1, 2, 2], 1, [2], [1, 2, 2]),  # L6: what agrees stays, and so does what follows it
        ([1, 2, 2], 0, [1], [1, 2, 2]),
        ([1, 2, 2], 1, [], [1, 2, 2]),
        ([1, 1, 2], 1, [1, 3, 3], [1, 1, 3, 3]),
    ],
)
def test_followers_logs_become_the_leaders(
    log: list[int], prev: int, new: list[int], result: list[int]
) -> None:
    """If an existing entry conflicts with a new one, delete it and all that follow; append the rest."""
    single = Single(log=log)
    sent = single.receive("n2", append(prev, ([0, *log])[prev], entries(*new, first=prev + 1)), term=4)
    assert single.terms == result
    assert messages(sent, AppendEntriesReply) == [AppendEntriesReply(Index(prev + len(new)))]
    changed = [i for i, term in enumerate(result) if i >= len(log) or log[i] != term]
    assert single.ready.write is not None  # the term, at least
    assert [each.index - 1 for each in single.ready.write.entries] == (
        list(range(changed[0], len(result))) if changed else []
    )


def test_an_acknowledgement_leaves_when_its_entries_are_durable() -> None:
    single = Single(instant_disk=False)
    assert messages(single.receive("n2", append(0, 0, entries(1, 1)), term=1), AppendEntriesReply) == []
    single.receive("n2", append(2, 1, entries(1, first=3)), term=1)
    assert messages(single.write_done(), AppendEntriesReply) == [AppendEntriesReply(Index(2))]


def test_an_acknowledgement_covers_what_was_asked_not_the_last_index() -> None:
    """L7: our tail beyond the request may be another leader's."""
    single = Single(log=[1, 1, 1, 1])
    sent = single.receive("n2", append(1, 1, entries(1, first=2)), term=2)
    assert messages(sent, AppendEntriesReply) == [AppendEntriesReply(Index(2))]


def test_a_promise_of_a_term_that_ended_within_the_turn_is_void() -> None:
    """A leader of term 2 cuts, within the turn, what was to be acknowledged to the leader of term 1."""
    single = Single()
    me = NodeId("n1")
    single.node.step(Envelope(GroupId(0), N2, me, Term(1), append(0, 0, entries(1, 1))))
    single.node.step(Envelope(GroupId(0), N3, me, Term(2), append(0, 0, entries(2))))
    sent = single.end_turn()
    replies = [each for each in sent if isinstance(each.message, AppendEntriesReply)]
    assert [(each.receiver, each.term, each.message) for each in replies] == [
        (N3, 2, AppendEntriesReply(Index(1)))
    ]


def test_committed_entries_are_never_cut() -> None:
    """L13: a node that is asked to has seen the impossible, and stops."""
    single = Single(log=[1, 1])
    single.receive("n2", append(2, 1, commit=2), term=1)
    with pytest.raises(InvariantBroken, match="committed index 2"):
        single.receive("n3", append(1, 1, entries(2, first=2)), term=2)


def test_next_index_begins_after_the_leaders_last_entry() -> None:
    """When a leader first comes to power, it initializes all nextIndex values just after its last index."""
    single = Single(log=[1, 1, 2])
    sent = single.lead()
    for request in messages(sent, AppendEntries):
        assert isinstance(request, AppendEntries)
        assert (request.prev_log_index, request.prev_log_term) == (3, 2)
        assert [each.term for each in request.entries] == [3]


def test_a_refusal_moves_next_index_back_and_never_match_index() -> None:
    """After a rejection, the leader decrements nextIndex and retries; L8: a refusal is no acknowledgement."""
    single = Single(log=[1, 1, 2, 2, 2])
    single.lead()
    sent = single.receive("n2", AppendEntriesRefusal(Index(5), Index(4), Term(1)))
    (request,) = messages(sent, AppendEntries, "n2")
    assert isinstance(request, AppendEntries)
    assert (request.prev_log_index, request.prev_log_term) == (2, 1)
    progress = single.leader_role.progress[N2]
    assert (progress.match_index, progress.next_index) == (0, 3)
    assert single.node.commit_index == 0


def test_stale_and_repeated_answers_move_nothing_back() -> None:
    """L5: matchIndex increases monotonically, and nextIndex stays above it."""
    single = Single(log=[1, 1, 1])
    single.lead()
    single.acknowledge("n2", 4)
    single.node.propose([b"x"])
    single.end_turn()
    progress = single.leader_role.progress[N2]
    assert (progress.mode, progress.match_index, progress.next_index) == (Mode.REPLICATE, 4, 6)
    for stale in (AppendEntriesReply(Index(1)), AppendEntriesRefusal(Index(3), Index(0), Term(0))):
        single.receive("n2", stale)
        assert (progress.mode, progress.match_index, progress.next_index) == (Mode.REPLICATE, 4, 6)


def test_a_repeated_refusal_is_not_counted_twice() -> None:
    single = Single(log=[1, 2, 3, 4])
    single.lead()
    refusal = AppendEntriesRefusal(Index(4), Index(3), Term(3))
    single.receive("n2", refusal)
    assert single.leader_role.progress[N2].next_index == 4
    assert messages(single.receive("n2", refusal), AppendEntries) == []
    assert single.leader_role.progress[N2].next_index == 4


def test_an_acknowledgement_of_what_was_never_sent_stops_the_node() -> None:
    single = Single()
    single.lead()
    with pytest.raises(InvariantBroken, match="never sent"):
        single.acknowledge("n2", 7)


def test_a_probing_leader_sends_one_request_at_a_time() -> None:
    """The probe of a follower is released by its own answer (MsgAppRespWaitReset), not by another's."""
    single = Single()
    single.lead()
    single.acknowledge("n3", 1)
    single.node.propose([b"a"])
    sent = single.end_turn()
    assert messages(sent, AppendEntries, "n2") == []
    assert len(messages(sent, AppendEntries, "n3")) == 1
    single.node.propose([b"b"])
    assert messages(single.end_turn(), AppendEntries, "n2") == []
    assert len(messages(single.acknowledge("n2", 1), AppendEntries, "n2")) == 1


@pytest.mark.parametrize(("lost", "mode", "next_index"), [(False, "replicate", 4), (True, "probe", 2)])
def test_a_lost_link_makes_a_probe_of_what_was_in_flight(lost: bool, mode: str, next_index: int) -> None:
    single = Single()
    single.lead()
    single.acknowledge("n2", 1)
    single.node.propose([b"a", b"b"])
    single.end_turn()
    if lost:
        single.node.peer_lost(N2)
    progress = single.leader_role.progress[N2]
    assert (progress.mode.value, progress.next_index) == (mode, next_index)


def test_followers_forward_proposals_and_refuse_without_a_leader() -> None:
    """If a client contacts a follower, the follower redirects it: here, it forwards the batches."""
    single = Single()
    assert not single.node.propose([b"a"])
    single.receive("n2", Heartbeat(Index(0), Index(0), 1), term=1)
    assert single.node.propose([b"a", b"b"])
    assert [(each.receiver, each.message) for each in single.end_turn()] == [(N2, Propose((b"a", b"b")))]


def test_a_candidate_takes_no_proposals() -> None:
    single = Single()
    single.stand()
    assert not single.node.propose([b"a"])
    assert not single.node.read(1)
    assert single.receive("n2", Propose((b"a",))) == []
    assert single.terms == []


def test_uncommitted_data_is_bounded() -> None:
    single = Single(limits=Limits(max_unsettled_bytes=10))
    single.lead()
    single.acknowledge("n2", 1)
    assert single.node.propose([b"x" * 50])
    assert not single.node.propose([b""])
    single.end_turn()
    single.acknowledge("n2", 2)
    assert single.node.propose([b"y"])


def test_committed_entries_are_handed_out_once_and_in_bounded_turns() -> None:
    single = Single(limits=Limits(max_apply_bytes=2), instant_disk=False)
    five = [entry(i, 1, b"x") for i in range(1, 6)]
    single.receive("n2", append(0, 0, five, commit=5), term=1)
    sizes = [len(single.applied)]
    while single.node.has_more:
        single.end_turn()
        sizes.append(len(single.applied))
    assert [each.index for each in single.applied] == [1, 2, 3, 4, 5]
    assert sizes == [2, 4, 5]


FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("scenario", sorted(FIGURE_7))
def test_figure_7_the_leader_brings_every_log_into_line(scenario: str) -> None:
    """The leader forces the followers' logs to duplicate its own; with n3's vote, whose log is short."""
    leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
    logs = {"n1": entries(*leader_log), "n2": entries(*FIGURE_7[scenario]), "n3": entries(1)}
    term_7 = HardState(Term(7), None)
    cluster = Cluster(logs, logs=logs, hard_states=dict.fromkeys(logs, term_7))
    cluster.cut("n1", "n2")
    cluster.campaign("n1")
    cluster.settle()
    assert cluster.leaders == ["n1"]
    assert cluster.node("n1").current_term == 8
    cluster.heal()
    cluster.peer_lost("n1", "n2")
    assert cluster.run(500, lambda: cluster.node("n2").commit_index == 11)
    assert cluster.servers["n1"].disk.entries == cluster.servers["n2"].disk.entries
    assert cluster.servers["n2"].disk.entries == cluster.servers["n3"].disk.entries
    assert [each.term for each in cluster.servers["n2"].disk.entries][:10] == leader_log
