"""A leader's view of its followers: what each answer moves, and what a late one must not move."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raftkv.consensus import Envelope
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    HeartbeatReply,
    Message,
)
from raftkv.consensus.progress import Mode, Progress
from raftkv.consensus.types import HardState, Index, Limits, NodeId, Term
from tests.consensus.harness import Cluster, entries
from tests.consensus.single import Single, messages

N2 = NodeId("n2")


def leading(log: Sequence[int] = (), **limits: int) -> tuple[Single, Progress]:
    """n1 leads three, its first messages are out; and its view of n2, which it still probes."""
    single = Single(log=log, limits=Limits(**limits))
    single.lead()
    return single, single.leader_role.progress[N2]


def sent_to_n2(sent: list[Message]) -> list[tuple[int, int]]:
    """(prev, number of entries) of each AppendEntries."""
    return [(m.prev_log_index, len(m.entries)) for m in sent if isinstance(m, AppendEntries)]


@pytest.mark.parametrize(
    ("answer", "mode", "match", "next_index", "probes"),
    [
        # refused, but not about the probe that is out: late
        (AppendEntriesRefusal(Index(2), Index(0), Term(0)), Mode.PROBE, 0, 4, []),
        # refused: back to where the logs may agree, and another probe
        (AppendEntriesRefusal(Index(3), Index(2), Term(1)), Mode.PROBE, 0, 3, [(2, 2)]),
        # all is there; nothing is left to send
        (AppendEntriesReply(Index(4)), Mode.REPLICATE, 4, 5, []),
        # what was probed matches, but the no-op isn't there yet: it is sent again
        (AppendEntriesReply(Index(3)), Mode.REPLICATE, 3, 5, [(3, 1)]),
        # an answer about the log's begin confirms nothing and moves nothing
        (AppendEntriesReply(Index(0)), Mode.PROBE, 0, 4, []),
    ],
)
def test_answers_to_a_probe(
    answer: Message, mode: Mode, match: int, next_index: int, probes: list[tuple[int, int]]
) -> None:
    """n1 probes n2 at index 3, with its no-op, entry 4."""
    single, progress = leading(log=[1, 1, 2])
    sent = single.receive("n2", answer)
    assert (progress.mode, progress.match_index, progress.next_index) == (mode, match, next_index)
    assert sent_to_n2(messages(sent, AppendEntries, "n2")) == probes


def test_an_empty_log_is_probed_from_its_begin() -> None:
    """Match 0 is an answer like others where nothing is shared: the entries follow."""
    single, progress = leading(log=[1, 1])
    sent = single.receive("n2", AppendEntriesRefusal(Index(2), Index(0), Term(0)))
    assert sent_to_n2(messages(sent, AppendEntries, "n2")) == [(0, 3)]
    single.receive("n2", AppendEntriesReply(Index(0)))
    assert (progress.mode, progress.match_index) == (Mode.REPLICATE, 0)


@pytest.mark.parametrize("prev", [1, 2, 3])
def test_a_late_refusal_after_a_broken_link_goes_not_below_what_matches(prev: int) -> None:
    """Asked before the link broke, answered after: n2 is known to hold entry 2, whatever it says of then."""
    single, progress = leading(log=[1])
    single.acknowledge("n2", 2)
    single.node.propose([b"a", b"b"])
    single.end_turn()
    single.node.peer_lost(N2)
    single.end_turn()
    assert (progress.mode, progress.match_index, progress.next_index) == (Mode.PROBE, 2, 3)
    for _ in range(2):
        sent = single.receive("n2", AppendEntriesRefusal(Index(prev), Index(0), Term(0)))
        assert messages(sent, AppendEntries, "n2") == []
        assert (progress.mode, progress.match_index, progress.next_index) == (Mode.PROBE, 2, 3)


def test_a_late_refusal_in_a_pipeline_goes_not_below_what_matches() -> None:
    """It was overtaken by what n2 acknowledged after it: its hint is older than what is known."""
    single, progress = leading(log=[1])
    single.acknowledge("n2", 2)
    single.node.propose([b"a", b"b"])
    single.end_turn()
    assert (progress.mode, progress.match_index, progress.next_index) == (Mode.REPLICATE, 2, 5)
    sent = single.receive("n2", AppendEntriesRefusal(Index(4), Index(1), Term(1)))
    assert (progress.mode, progress.match_index, progress.next_index) == (Mode.PROBE, 2, 3)
    assert sent_to_n2(messages(sent, AppendEntries, "n2")) == [(2, 2)]


def full_window() -> tuple[Single, Progress]:
    """n2 has acknowledged entry 1; entries 2 to 4 fill its window, 5 to 9 wait."""
    single, progress = leading(max_inflight_messages=3)
    single.acknowledge("n2", 1)
    for i in range(8):
        single.node.propose([b"%d" % i])
        single.end_turn()
    assert [last for last, _ in progress.inflight] == [2, 3, 4]
    return single, progress


def test_a_full_window_takes_nothing_more() -> None:
    single, progress = full_window()
    assert not progress.has_room(3, 1 << 20)
    assert messages(single.end_turn(), AppendEntries, "n2") == []


@pytest.mark.parametrize(("ack", "left"), [(2, 2), (3, 1), (4, 0)])
def test_an_answer_moves_the_window_as_far_as_it_covers(ack: int, left: int) -> None:
    single, progress = full_window()
    sent = single.acknowledge("n2", ack)
    assert sent_to_n2(messages(sent, AppendEntries, "n2")) == [(4, 5)], "all that waited, in one message"
    assert [last for last, _ in progress.inflight] == [*[2, 3, 4][3 - left :], 9]
    assert progress.inflight_bytes == left + 5


@pytest.mark.parametrize("late", [AppendEntriesReply(Index(1)), AppendEntriesReply(Index(0))])
def test_a_late_answer_does_not_move_the_window(late: Message) -> None:
    single, progress = full_window()
    for _ in range(2):
        assert messages(single.receive("n2", late), AppendEntries, "n2") == []
    assert [last for last, _ in progress.inflight] == [2, 3, 4]


def test_heartbeats_find_out_what_became_of_a_full_window() -> None:
    """One empty message a heartbeat, from the second on, while nothing moves; and it counts for nothing."""
    single, progress = full_window()
    probes = []
    for _ in range(4):
        sent = single.wait(50)
        probes.append(sent_to_n2(messages(sent, AppendEntries, "n2")))
        for peer in single.peers:
            single.receive(peer, HeartbeatReply(single.leader_role.round))
    assert probes == [[], [(4, 0)], [(4, 0)], [(4, 0)]]
    assert [last for last, _ in progress.inflight] == [2, 3, 4]


# A leader's log, a follower's, and where the leader's probes begin until they match. The no-op is not shown.
DIVERGENCES: list[tuple[list[int], list[int], list[int]]] = [
    # the follower's hint is enough: it skips its own later terms
    ([1, 2, 2, 4, 4, 4, 4], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], [7, 3]),
    ([1, 2, 2, 3, 4, 4, 4, 5], [1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], [8, 4]),
    # the leader's own log is: the follower's term 1 is as far as theirs goes
    ([1, 1, 1, 1, 5], [1, 1, 1, 1], [5, 4]),
    ([1, 1, 1, 1, 5, 5], [1, 1, 1, 1], [6, 4]),
    # the follower's log ends early, then agrees
    ([1, 2, 3, 4, 4], [1], [5, 1]),
    ([1, 1, 3, 3, 3], [], [5, 0]),
    # both skip
    ([1, 1, 1, 4, 4, 5, 5], [1, 1, 1, 2, 2, 3, 3], [7, 3]),
    ([2, 2, 5, 5, 5], [1, 1, 1, 1, 1], [5, 0]),
    # terms that interleave cost a refusal each, however many entries they have
    ([1, 3, 3, 3, 5, 5], [1, 3, 3, 4, 4, 4], [6, 4, 3]),
    ([1, 3, 5, 7], [1, 2, 4, 6], [4, 3, 2, 1]),
    ([1, 1, 3, 3, 3, 5], [1, 1, 2, 2, 2, 4], [6, 5, 2]),
]


@pytest.mark.parametrize(("leader", "follower", "prevs"), DIVERGENCES)
def test_refusals_skip_whole_terms(leader: list[int], follower: list[int], prevs: list[int]) -> None:
    """End of 5.3: where the logs part is found by terms, not by entries; n3 is empty and votes."""
    logs = {"n1": entries(*leader), "n2": entries(*follower), "n3": []}
    term = HardState(Term(max(leader + follower)), None)
    cluster = Cluster(logs, logs=logs, hard_states=dict.fromkeys(logs, term))
    probed: list[int] = []

    def watch(envelope: Envelope) -> None:
        if isinstance(envelope.message, AppendEntries) and envelope.receiver == "n2":
            probed.append(envelope.message.prev_log_index)

    cluster.on_send = watch
    cluster.campaign("n1")
    cluster.settle()
    assert cluster.leaders == ["n1"]
    assert probed == prevs
    assert cluster.servers["n2"].disk.entries == cluster.servers["n1"].disk.entries
