"""Envelopes to bytes and back: every kind survives, its bytes are fixed, and nothing else is read."""

from __future__ import annotations

from typing import Any, get_args

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftkv.consensus import messages as m
from raftkv.consensus.types import (
    AddLearner,
    Entry,
    EntryKind,
    GroupId,
    Index,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
    Verdict,
)
from raftkv.wire.codec import decode_envelopes, encode_envelopes, envelope_size
from raftkv.wire.errors import WireError
from raftkv.wire.frames import MAX_ARRAY_ITEMS, FrameKind, pack_frame
from tests.wire.strategies import envelopes, packable

FRAME_HEADER_BYTES = 6  # kind, and the array header at its largest


def entry(index: int, data: bytes = b"data") -> Entry:
    return Entry(Index(index), Term(7), EntryKind.BATCH, 1234, data)


GOLDEN: dict[type, tuple[Any, str]] = {
    m.PreVote: (
        m.PreVote(Term(8), Index(300), Term(7)),
        "920198 00 a26e31 a26e32 07 00 08 cd012c 07",
    ),
    m.PreVoteReply: (m.PreVoteReply(Term(8), True), "920197 00 a26e31 a26e32 07 01 08 c3"),
    m.RequestVote: (m.RequestVote(Index(300), Term(7), True), "920198 00 a26e31 a26e32 07 02 cd012c 07 c3"),
    m.RequestVoteReply: (m.RequestVoteReply(False), "920196 00 a26e31 a26e32 07 03 c2"),
    m.AppendEntries: (
        m.AppendEntries(
            Index(300), Term(6), (Entry(Index(301), Term(7), EntryKind.NOOP, 5, b""), entry(302)), Index(299)
        ),
        "920199 00 a26e31 a26e32 07 04 cd012c 06 cd012b"
        " 92 95 cd012d 07 00 05 c400 95 cd012e 07 01 cd04d2 c40464617461",
    ),
    m.AppendEntriesReply: (m.AppendEntriesReply(Index(302)), "920196 00 a26e31 a26e32 07 05 cd012e"),
    m.AppendEntriesRefusal: (
        m.AppendEntriesRefusal(Index(300), Index(250), Term(3)),
        "920198 00 a26e31 a26e32 07 06 cd012c ccfa 03",
    ),
    m.Heartbeat: (m.Heartbeat(Index(299), Index(200), 9), "920198 00 a26e31 a26e32 07 07 cd012b ccc8 09"),
    m.HeartbeatReply: (m.HeartbeatReply(9), "920196 00 a26e31 a26e32 07 08 09"),
    m.ReadIndex: (m.ReadIndex(2**40), "920196 00 a26e31 a26e32 07 09 cf0000010000000000"),
    m.ReadIndexReply: (m.ReadIndexReply(3, Index(301)), "920197 00 a26e31 a26e32 07 0a 03 cd012d"),
    m.Propose: (m.Propose((b"one", b"")), "920196 00 a26e31 a26e32 07 0b 92 c4036f6e65 c400"),
    m.TransferLeadership: (m.TransferLeadership(NodeId("n3")), "920196 00 a26e31 a26e32 07 0c a26e33"),
    m.TimeoutNow: (m.TimeoutNow(), "920195 00 a26e31 a26e32 07 0d"),
    m.InstallSnapshot: (
        m.InstallSnapshot(SnapshotMeta(Index(300), Term(6), 1234), Membership.of("n1")),
        "920199 00 a26e31 a26e32 07 0e cd012c 06 cd04d2 c416" + b"membership 1\nvoters n1".hex(),
    ),
    m.ChangeMembers: (
        m.ChangeMembers(5, AddLearner(NodeId("n4"), "h:1", True, NodeId("n2")), False),
        "92019c 00 a26e31 a26e32 07 0f 05 c2 00 a26e34 a3683a31 c3 a26e32",
    ),
    m.ChangeMembersReply: (
        m.ChangeMembersReply(5, Verdict.REFUSED, Index(0), "no"),
        "920199 00 a26e31 a26e32 07 10 05 03 00 a26e6f",
    ),
    m.LeaseGrant: (m.LeaseGrant(9, 300), "920197 00 a26e31 a26e32 07 11 09 cd012c"),
    m.LeaseRead: (m.LeaseRead(2**40), "920196 00 a26e31 a26e32 07 12 cf0000010000000000"),
}


def envelope(message: Any) -> m.Envelope:
    return m.Envelope(GroupId(0), NodeId("n1"), NodeId("n2"), Term(7), message)


def test_every_message_has_a_golden_frame() -> None:
    assert set(GOLDEN) == set(get_args(m.Message))


@pytest.mark.parametrize("kind", GOLDEN, ids=lambda kind: kind.__name__)
def test_golden_frame(kind: type) -> None:
    """The bytes of one frame of each kind: they change only with the protocol version."""
    message, golden = GOLDEN[kind]
    assert encode_envelopes([envelope(message)]).hex() == golden.replace(" ", "")
    assert decode_envelopes(bytes.fromhex(golden)) == [envelope(message)]


@given(st.lists(envelopes, max_size=5))
def test_round_trip(sent: list[m.Envelope]) -> None:
    received = decode_envelopes(encode_envelopes(sent))
    assert received == sent
    for one in received:
        if isinstance(one.message, m.AppendEntries):
            assert all(type(each.kind) is EntryKind for each in one.message.entries)


@given(envelopes)
def test_size_is_an_upper_bound(one: m.Envelope) -> None:
    entries = len(one.message.entries) if isinstance(one.message, m.AppendEntries) else 0
    batches = len(one.message.batches) if isinstance(one.message, m.Propose) else 0
    actual = len(encode_envelopes([one])) - 2
    assert actual <= envelope_size(one) <= actual + 250 + 34 * entries + 5 * batches


def test_size_counts_every_entry_and_batch_in_full() -> None:
    """Where numbers and ids are as long as they get, and there are many."""
    top = 2**63 - 1
    entries = tuple(
        Entry(Index(top - 1000 + offset), Term(top), EntryKind.BATCH, top, b"x" * 70_000)
        for offset in range(50)
    )
    append = m.AppendEntries(Index(top - 1001), Term(top), entries, Index(top))
    handover = m.TransferLeadership(NodeId("z" * 64))
    for message in (append, m.Propose((b"x" * 70_000,) * 50), handover):
        one = m.Envelope(GroupId(2**32 - 1), NodeId("x" * 64), NodeId("y" * 64), Term(top), message)
        assert len(encode_envelopes([one])) - 2 <= envelope_size(one)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\x91" * 5000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xd6\xff\x00\x00\x00\x00")
def test_random_bytes_raise_wire_error_only(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_envelopes(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.lists(envelopes, min_size=1, max_size=3), st.data())
def test_mutated_frames_raise_wire_error_only(sent: list[m.Envelope], data: st.DataObject) -> None:
    frame = bytearray(encode_envelopes(sent))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not frame:
            break
    try:
        received = decode_envelopes(bytes(frame))
    except WireError:
        return
    assert decode_envelopes(encode_envelopes(received)) == received  # what is read is well formed


@given(packable)
def test_random_structures_raise_wire_error_only(value: Any) -> None:
    for shape in (
        value,
        [1, value],
        [1, [0, "n1", "n2", 7, value]],
        [1, [0, "n1", "n2", 7, 4, 5, 5, 5, value]],
    ):
        try:
            received = decode_envelopes(msgpack.packb(shape))
        except WireError:
            continue
        assert decode_envelopes(encode_envelopes(received)) == received


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([[True, "n1", "n2", 7, 8, 1]], "True is not a number"),
        ([[0, "n1", "n2", 2**63, 8, 1]], "9223372036854775808 is not a number"),
        ([[0, "n1", "n2", -1, 8, 1]], "-1 is not a number"),
        ([[2**32, "n1", "n2", 7, 8, 1]], "over the limit"),
        ([[0, "", "n2", 7, 8, 1]], "'' is not an id"),
        ([[0, "n1\n", "n2", 7, 8, 1]], "is not an id"),
        ([[0, "n1", b"n2", 7, 8, 1]], "b'n2' is not an id"),
        ([[0, "n1", "x" * 65, 7, 8, 1]], "is not an id"),
        ([[0, "n1", "n2", 7, 99, 1]], "unknown message kind 99"),
        ([[0, "n1", "n2", 7, True, 1]], "unknown message kind True"),
        ([[0, "n1", "n2", 7, 8]], "1 fields, not 0"),
        ([[0, "n1", "n2", 7, 8, 1, 1]], "1 fields, not 2"),
        ([[0, "n1", "n2", 7, 8, 1.0]], "1.0 is not a number"),
        ([[0, "n1", "n2", 7, 3, 1]], "1 is not a bool"),
        ([[0, "n1", "n2", 7, 1, 1, None]], "None is not a bool"),
        ([[0, "n1", "n2"]], "at least 5"),
        ([{}], "at least 5"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, 6]], "entries are an array"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 1, 1, 0]]]], "array of 5"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 1, 1, 0, "text"]]]], "entry data is bytes, not 'text'"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 1, 3, 0, b""]]]], "unknown entry kind 3"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 1, 2, 0, b"?"]]]], "a membership begins with"),
        ([[0, "n1", "n2", 7, 14, 1, 1, 1, b"?"]], "a membership begins with"),
        ([[0, "n1", "n2", 7, 14, 1, 1, 1, "?"]], "a membership is bytes, not '.'"),
        ([[0, "n1", "n2", 7, 15, 1, False, 4, "n4", None, False, None]], "unknown change of members 4"),
        ([[0, "n1", "n2", 7, 15, 1, False, 0, "n4", None, False, None]], "an address is text, not None"),
        ([[0, "n1", "n2", 7, 15, 1, False, 3, "n4", "a b", False, None]], "'a b' is no address"),
        ([[0, "n1", "n2", 7, 15, 1, False, 0, "n4", "a:1", 1, None]], "1 is not a bool"),
        ([[0, "n1", "n2", 7, 15, 1, 0, 2, "n4", None, False, None]], "0 is not a bool"),
        ([[0, "n1", "n2", 7, 15, 1, False, 2, "", None, False, None]], "'' is not an id"),
        ([[0, "n1", "n2", 7, 15, 1, False, 0, "n4", "a:1", False, ""]], "'' is not an id"),
        ([[0, "n1", "n2", 7, 15, 1, False, 2, "n4", "a:1", False, None]], "kind 2 has too many fields"),
        ([[0, "n1", "n2", 7, 16, 1, 4, 0, ""]], "unknown verdict 4"),
        ([[0, "n1", "n2", 7, 16, 1, 0, 0, b""]], "a reason is text, not b''"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 1, True, 0, b""]]]], "True is not a number"),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[7, 1, 1, 0, b""]]]], "entry 7 stands where 6 follows"),
        (
            [[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 1, 1, 0, b""], [8, 1, 1, 0, b""]]]],
            "entry 8 stands where 7 follows",
        ),
        ([[0, "n1", "n2", 7, 4, 5, 6, 5, [[6, 5, 1, 0, b""]]]], "entry 6 of term 5 follows one of term 6"),
        (
            [[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 3, 1, 0, b""], [7, 2, 1, 0, b""]]]],
            "entry 7 of term 2 follows one of term 3",
        ),
        ([[0, "n1", "n2", 7, 4, 5, 1, 5, [[6, 8, 1, 0, b""]]]], "entry of term 8 in a message of term 7"),
        ([[0, "n1", "n2", 7, 11, b"batch"]], "batches are an array"),
        ([[0, "n1", "n2", 7, 11, ["batch"]]], "a batch is bytes, not 'batch'"),
    ],
)
def test_malformed_envelope(items: list[Any], says: str) -> None:
    with pytest.raises(WireError, match=says):
        decode_envelopes(pack_frame(FrameKind.ENVELOPES, items))


def test_entries_past_the_last_number_are_refused() -> None:
    prev = 2**63 - 1
    item = [0, "n1", "n2", 7, 4, prev, 1, 5, [[prev + 1, 1, 1, 0, b""]]]
    with pytest.raises(WireError, match="is not a number"):
        decode_envelopes(pack_frame(FrameKind.ENVELOPES, [item]))


def test_too_many_entries_or_batches_are_not_encoded() -> None:
    entries = tuple(entry(index, b"") for index in range(1, MAX_ARRAY_ITEMS + 2))
    with pytest.raises(WireError, match="65537 entries"):
        encode_envelopes([envelope(m.AppendEntries(Index(0), Term(0), entries, Index(0)))])
    with pytest.raises(WireError, match="65537 batches"):
        encode_envelopes([envelope(m.Propose((b"",) * (MAX_ARRAY_ITEMS + 1)))])


def test_the_most_entries_a_message_may_have() -> None:
    entries = tuple(entry(index, b"") for index in range(1, MAX_ARRAY_ITEMS + 1))
    sent = [envelope(m.AppendEntries(Index(0), Term(0), entries, Index(0)))]
    assert decode_envelopes(encode_envelopes(sent)) == sent


def test_a_number_that_does_not_fit_is_not_encoded() -> None:
    with pytest.raises(WireError, match="can't be packed"):
        encode_envelopes([envelope(m.HeartbeatReply(2**64))])
    assert decode_envelopes(encode_envelopes([envelope(m.HeartbeatReply(1))]))  # and the packer still works
