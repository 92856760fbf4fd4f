"""Frames of every kind, mutated: they are read, or refused in one line; and what is read makes sense."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from raftkv.consensus.messages import AppendEntries, Envelope
from raftkv.consensus.types import NodeId
from raftkv.transport.hello import objection
from raftkv.wire.codec import decode_envelopes, encode_envelopes
from raftkv.wire.errors import WireError
from raftkv.wire.reports import Hello, decode_hello, decode_status, encode_hello, encode_status
from tests.fuzz.budget import budget
from tests.fuzz.mutations import mutated
from tests.transport.nodes import identity
from tests.wire.strategies import envelopes, json_values, names, numbers

hellos = st.builds(
    Hello,
    st.just(1) | numbers,
    st.just("c1") | names,
    st.just("n2") | names,
    st.just("n1") | names,
    numbers,
    st.lists(numbers, max_size=3).map(tuple),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
)
statuses = st.dictionaries(st.text(max_size=10), json_values, max_size=6)
frames = (
    st.lists(envelopes, min_size=1, max_size=4).map(encode_envelopes)
    | hellos.map(encode_hello)
    | statuses.map(encode_status)
)


def read(decode: Callable[[bytes], Any], data: bytes) -> Any:
    """What ``decode`` makes of ``data``; None where it refuses, which it does in one bounded line."""
    try:
        return decode(data)
    except WireError as refused:
        line = str(refused)
    assert "\n" not in line
    assert len(line) < 300
    return None


def makes_sense(envelope: Envelope) -> None:
    """What the core takes for granted of a message, because the codec looked."""
    message = envelope.message
    if isinstance(message, AppendEntries) and message.entries:
        assert [entry.index - message.prev_log_index for entry in message.entries] == list(
            range(1, len(message.entries) + 1)
        )
        terms = [message.prev_log_term, *(entry.term for entry in message.entries), envelope.term]
        assert all(before <= after for before, after in itertools.pairwise(terms))


@given(mutated(frames))
@budget(200)
def test_mutated_frames(frame: bytes) -> None:
    received = read(decode_envelopes, frame)
    if received is not None:
        assert decode_envelopes(encode_envelopes(received)) == received
        for envelope in received:
            makes_sense(envelope)
    hello = read(decode_hello, frame)
    if hello is not None:
        assert decode_hello(encode_hello(hello)) == hello
        no = objection(hello, identity("n1"), (NodeId("n2"),))
        assert no is None or len(no.message) <= 123
    status = read(decode_status, frame)
    if status is not None:
        # NB: not the values: a NaN differs from itself.
        assert decode_status(encode_status(status)).keys() == status.keys()


@given(
    st.tuples(
        st.integers(0, 9),
        st.integers(0, 9),
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), max_size=5),
        st.integers(0, 9),
    )
)
@budget(200)
def test_entries_that_make_no_sense_are_refused(drawn: Any) -> None:
    prev, prev_term, entries, term = drawn
    items = [[index, entry_term, 1, 0, b""] for index, entry_term in entries]
    frame = msgpack.packb([1, [0, "n1", "n2", term, 4, prev, prev_term, 0, items]])
    for envelope in read(decode_envelopes, frame) or ():
        makes_sense(envelope)
