"""Hypothesis strategies of everything that travels."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftkv.consensus import messages as m
from raftkv.consensus.membership import encode_membership
from raftkv.consensus.types import (
    AddLearner,
    Change,
    Entry,
    EntryKind,
    GroupId,
    Index,
    Learner,
    Membership,
    Move,
    NodeId,
    Promote,
    Remove,
    SnapshotMeta,
    Term,
    Verdict,
)
from raftkv.wire.frames import MAX_NUMBER

numbers = st.integers(0, MAX_NUMBER) | st.integers(0, 300)
names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
blobs = st.binary(max_size=300)


addresses = st.sampled_from(["n1:7101", "[::1]:80", "!" * 262, "~"])
few_names = st.sampled_from(["n1", "n2", "n3", "n4", "n5", "A.b_c-9" * 9])


@st.composite
def memberships(draw: st.DrawFn, ids: st.SearchStrategy[str] = few_names) -> Membership:
    """Any that there may be: joint or not, with learners and some addresses."""
    nodes = ids.map(NodeId)
    voters = draw(st.sets(nodes, max_size=5))
    outgoing = draw(st.sets(nodes, max_size=5)) if voters else set()
    learning = draw(st.sets(nodes, max_size=3)) - voters - outgoing
    learners = []
    for each in sorted(learning):
        replaces = draw(st.none() | nodes)
        learners.append(Learner(each, draw(st.booleans()), None if replaces == each else replaces))
    known = draw(st.dictionaries(nodes, addresses, max_size=4))
    return Membership(
        tuple(sorted(voters)),
        tuple(sorted(outgoing)),
        tuple(learners),
        tuple(sorted((each, known[each]) for each in known if each in voters | outgoing | learning)),
    )


configs = st.sampled_from([
    encode_membership(Membership.of("n1")),
    encode_membership(Membership((NodeId("n1"), NodeId("n4")), (NodeId("n1"), NodeId("n2")))),
])  # fmt: skip


@st.composite
def changes(draw: st.DrawFn) -> Change:
    node, address = NodeId(draw(few_names)), draw(addresses)
    replaces = draw(st.none() | few_names.map(NodeId))
    kinds: list[Change] = [
        AddLearner(node, address, draw(st.booleans()), replaces),
        Promote(node),
        Remove(node),
        Move(node, address),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def append_entries(draw: st.DrawFn) -> m.AppendEntries:
    prev = draw(st.integers(0, MAX_NUMBER - 10))
    prev_term, *terms = sorted(draw(st.lists(numbers, min_size=1, max_size=5)))
    entries = []
    for offset, term in enumerate(terms):
        kind = draw(st.sampled_from(EntryKind))
        data = draw(configs if kind is EntryKind.CONFIG else blobs)
        entries.append(Entry(Index(prev + 1 + offset), Term(term), kind, draw(numbers), data))
    return m.AppendEntries(Index(prev), Term(prev_term), tuple(entries), Index(draw(numbers)))


messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(m.PreVote, numbers, numbers, numbers),
    st.builds(m.PreVoteReply, numbers, st.booleans()),
    st.builds(m.RequestVote, numbers, numbers, st.booleans()),
    st.builds(m.RequestVoteReply, st.booleans()),
    append_entries(),
    st.builds(m.AppendEntriesReply, numbers),
    st.builds(m.AppendEntriesRefusal, numbers, numbers, numbers),
    st.builds(m.Heartbeat, numbers, numbers, numbers),
    st.builds(m.HeartbeatReply, numbers),
    st.builds(m.LeaseGrant, numbers, numbers),
    st.builds(m.LeaseRead, numbers),
    st.builds(m.ReadIndex, numbers),
    st.builds(m.ReadIndexReply, numbers, numbers),
    st.builds(m.Propose, st.lists(blobs, max_size=4).map(tuple)),
    st.builds(m.TransferLeadership, st.none() | names.map(NodeId)),
    st.builds(m.TimeoutNow),
    st.builds(m.InstallSnapshot, st.builds(SnapshotMeta, numbers, numbers, numbers), memberships()),
    st.builds(m.ChangeMembers, numbers, changes(), st.booleans()),
    st.builds(
        m.ChangeMembersReply,
        numbers,
        st.sampled_from(Verdict),
        numbers,
        st.text(max_size=200),
    ),
)


@st.composite
def _envelopes(draw: st.DrawFn) -> m.Envelope:
    message = draw(messages)
    entries = message.entries if isinstance(message, m.AppendEntries) else ()
    term = max([draw(numbers), *(entry.term for entry in entries)])  # a leader has no entries of the future
    group, sender, receiver = draw(st.integers(0, 2**32 - 1)), draw(names), draw(names)
    return m.Envelope(GroupId(group), NodeId(sender), NodeId(receiver), Term(term), message)


envelopes = _envelopes()

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)

# What msgpack can say, of any shape: mostly near a frame's, so that the deeper checks are reached too.
packable: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-2, 12)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["n1", "n2"])
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=40,
)
