"""Hypothesis strategies of everything that travels."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftkv.consensus import messages as m
from raftkv.consensus.types import Entry, EntryKind, GroupId, Index, NodeId, Term
from raftkv.wire.frames import MAX_NUMBER

numbers = st.integers(0, MAX_NUMBER) | st.integers(0, 300)
names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
blobs = st.binary(max_size=300)


@st.composite
def append_entries(draw: st.DrawFn) -> m.AppendEntries:
    prev = draw(st.integers(0, MAX_NUMBER - 10))
    prev_term, *terms = sorted(draw(st.lists(numbers, min_size=1, max_size=5)))
    entries = tuple(
        Entry(
            Index(prev + 1 + offset),
            Term(term),
            draw(st.sampled_from(EntryKind)),
            draw(numbers),
            draw(blobs),
        )
        for offset, term in enumerate(terms)
    )
    return m.AppendEntries(Index(prev), Term(prev_term), entries, Index(draw(numbers)))


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
    st.builds(m.ReadIndex, numbers),
    st.builds(m.ReadIndexReply, numbers, numbers),
    st.builds(m.Propose, st.lists(blobs, max_size=4).map(tuple)),
    st.builds(m.TransferLeadership, st.none() | names.map(NodeId)),
    st.builds(m.TimeoutNow),
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
