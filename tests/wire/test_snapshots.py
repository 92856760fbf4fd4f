"""The stream of a snapshot: whole and in order, or refused."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from raftkv.consensus.types import GroupId, Index, NodeId, SnapshotMeta, Term
from raftkv.wire import snapshots
from raftkv.wire.errors import WireError
from raftkv.wire.reports import Hello
from raftkv.wire.snapshots import Offer, StreamDecoder, StreamEncoder

HELLO = Hello(1, "c1", NodeId("n2"), NodeId("n1"), 4, (GroupId(0),), "http://n2")
OFFER = Offer(GroupId(0), Term(7), SnapshotMeta(Index(4711), Term(6), 90_000), b"members")
CHUNKS = [b"first", b"", b"x" * 300, b"last"]


def stream(chunks: list[bytes] = CHUNKS) -> list[bytes]:
    """Its records."""
    encoder = StreamEncoder()
    return [encoder.head(HELLO, OFFER), *(encoder.chunks([chunk]) for chunk in chunks), encoder.end()]


def decoded(data: bytes, size: int = 1 << 30) -> list[object]:
    """What a decoder makes of a whole stream that comes ``size`` bytes at a time."""
    decoder = StreamDecoder()
    found = [item for at in range(0, len(data), size) for item in decoder.feed(data[at : at + size])]
    if not decoder.is_done:
        raise WireError("not whole")
    return list(found)


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 30])
def test_what_was_put_in_comes_out_however_it_is_cut(size: int) -> None:
    assert decoded(b"".join(stream()), size) == [HELLO, OFFER, *CHUNKS]


def test_the_bytes_stay() -> None:
    """Another version must be able to read them: whoever changes them raises the protocol's version.

    NB: the checksums begin with the hello, and change where it says more.
    """
    encoder = StreamEncoder()
    offer = encoder.head(HELLO, OFFER)[-33:]
    assert offer.hex() == "1500000002000000394b40c3960007cd126706ce00015f90c4076d656d62657273"
    assert encoder.chunks([b"chunk"]).hex() == "0500000003000000a44e1e3a6368756e6b"
    assert encoder.end().hex() == "0800000004000000b610bc0e0100000000000000"


def test_several_chunks_at_once_are_the_same_as_one_by_one() -> None:
    encoder = StreamEncoder()
    together = encoder.head(HELLO, OFFER) + encoder.chunks(CHUNKS) + encoder.end()
    assert together == b"".join(stream())


def test_every_cut_is_refused() -> None:
    data = b"".join(stream())
    for cut in range(len(data)):
        with pytest.raises(WireError):
            decoded(data[:cut])


def test_every_flipped_bit_is_refused() -> None:
    data = b"".join(stream())
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << random.Random(at).randrange(8)
        with pytest.raises(WireError):
            decoded(bytes(damaged))


def rearranged() -> Iterator[list[bytes]]:
    """Streams of sound records in a wrong order."""
    records = stream()
    yield records[1:]
    yield [records[0], *records[2:]]
    yield [*records[:2], records[1], *records[2:]]
    yield [records[0], records[2], records[1], *records[3:]]
    yield [*records, records[-1]]
    yield [*records, b"\0"]
    yield [records[0], *records]
    yield [*stream([b"of", b"another"])[:2], *records[2:]]


@pytest.mark.parametrize("records", list(rearranged()))
def test_records_that_are_missing_repeated_or_elsewhere_are_refused(records: list[bytes]) -> None:
    with pytest.raises(WireError):
        decoded(b"".join(records))


@pytest.mark.parametrize(
    "offer",
    [
        Offer(GroupId(0), Term(7), SnapshotMeta(Index(0), Term(6), 0), b""),
        Offer(GroupId(0), Term(7), SnapshotMeta(Index(1), Term(0), 0), b""),
        Offer(GroupId(0), Term(7), SnapshotMeta(Index(1), Term(8), 0), b""),
        Offer(GroupId(-1), Term(7), SnapshotMeta(Index(1), Term(1), 0), b""),
        Offer(GroupId(0), Term(7), SnapshotMeta(Index(1), Term(1), 0), "text"),  # type: ignore[arg-type]
    ],
)
def test_impossible_offers(offer: Offer) -> None:
    with pytest.raises(WireError):
        StreamDecoder().feed(StreamEncoder().head(HELLO, offer))


def test_a_stranger_can_announce_no_more_than_a_hello() -> None:
    """Nothing is kept of what it says before it has said who it is."""
    with pytest.raises(WireError, match="65537 bytes"):
        StreamDecoder().feed(((64 << 10) + 1).to_bytes(4, "little") + b"\1" + bytes(7))


def test_an_end_that_counts_otherwise_is_refused() -> None:
    encoder = StreamEncoder()
    data = encoder.head(HELLO, OFFER) + encoder.chunks(CHUNKS)
    encoder._chunks -= 1
    with pytest.raises(WireError, match="4 chunks came"):
        StreamDecoder().feed(data + encoder.end())


def test_a_chunk_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(snapshots._MAX_BYTES, snapshots._Type.CHUNK, 10)
    with pytest.raises(WireError, match="11 bytes"):
        StreamEncoder().chunks([bytes(11)])
