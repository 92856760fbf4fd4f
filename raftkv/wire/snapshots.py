"""A snapshot on its way to a follower: the body of one HTTP request, as a stream of checked records.

A record (little-endian): length u32, type u8, three zero bytes, CRC-32C u32 of these 8 bytes and the payload,
continued from the record before (from 0 for the first), then the payload. A stream is one HELLO, one OFFER,
any number of CHUNKs, one END with the number of chunks (u64), and nothing after it. Since the checksums are
chained, a record that is missing, repeated or from another stream is found too.

Must not know: sockets, files, what is in a chunk or in ``extra``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import google_crc32c
import msgpack

from raftkv.consensus.types import GroupId, Index, SnapshotMeta, Term
from raftkv.wire.errors import WireError
from raftkv.wire.frames import check_numbers
from raftkv.wire.reports import MAX_HELLO_BYTES, Hello, decode_hello, encode_hello

MAX_OFFER_BYTES = 1 << 20
MAX_CHUNK_BYTES = 64 << 20

_HEAD = struct.Struct("<IB3x")
_CHECKED_HEAD = struct.Struct("<IB3sI")
_U32 = struct.Struct("<I")
_END = struct.Struct("<Q")

_extend = google_crc32c.extend


class _Type(IntEnum):
    """On the wire: never renumber."""

    HELLO = 1
    OFFER = 2
    CHUNK = 3
    END = 4


_MAX_BYTES = {
    _Type.HELLO: MAX_HELLO_BYTES,
    _Type.OFFER: MAX_OFFER_BYTES,
    _Type.CHUNK: MAX_CHUNK_BYTES,
    _Type.END: _END.size,
}


@dataclass(frozen=True, slots=True)
class Offer:
    """What a leader of ``term`` sends: the snapshot of ``group`` that ends at ``meta``; ``extra`` belongs to
    it beside the machine.
    """

    group: GroupId
    term: Term
    meta: SnapshotMeta
    extra: bytes


class StreamEncoder:
    """Makes the records, which must leave in the order they were made in."""

    def __init__(self) -> None:
        self._chain = 0
        self._chunks = 0

    def head(self, hello: Hello, offer: Offer) -> bytes:
        """Raises ``WireError`` where something is over a limit."""
        meta = offer.meta
        values = [offer.group, offer.term, meta.index, meta.term, meta.time_ms, offer.extra]
        packed: bytes = msgpack.packb(values)
        return self._record(_Type.HELLO, encode_hello(hello)) + self._record(_Type.OFFER, packed)

    def chunks(self, chunks: Iterable[bytes]) -> bytes:
        records = [self._record(_Type.CHUNK, chunk) for chunk in chunks]
        self._chunks += len(records)
        return b"".join(records)

    def end(self) -> bytes:
        return self._record(_Type.END, _END.pack(self._chunks))

    def _record(self, kind: _Type, payload: bytes) -> bytes:
        if len(payload) > _MAX_BYTES[kind]:
            raise WireError(f"a record of {len(payload)} bytes is over the limit of {_MAX_BYTES[kind]}")
        head = _HEAD.pack(len(payload), kind)
        self._chain = _extend(_extend(self._chain, head), payload)
        return b"".join((head, _U32.pack(self._chain), payload))


class StreamDecoder:
    """Takes the bytes as they come, and checks them. Keeps at most one record that isn't whole."""

    def __init__(self) -> None:
        self.is_done = False  # the END has come
        self._buffer = bytearray()
        self._chain = 0
        self._chunks = 0
        self._seen = 0  # records

    def feed(self, data: bytes) -> list[Hello | Offer | bytes]:
        """What has become whole: the hello, then the offer, then chunks. Raises ``WireError``, after which
        nothing may be fed.
        """
        self._buffer += data
        found: list[Hello | Offer | bytes] = []
        while (record := self._next()) is not None:
            kind, payload = record
            if kind is _Type.HELLO:
                found.append(decode_hello(payload))
            elif kind is _Type.OFFER:
                found.append(_decode_offer(payload))
            elif kind is _Type.CHUNK:
                self._chunks += 1
                found.append(payload)
            elif payload != _END.pack(self._chunks):
                raise WireError(f"{self._chunks} chunks came, but the snapshot's end says otherwise")
            else:
                self.is_done = True
        if self.is_done and self._buffer:
            raise WireError("the stream goes on after its end")
        return found

    def _next(self) -> tuple[_Type, bytes] | None:
        """The next record, if it is there and belongs there."""
        buffer = self._buffer
        if len(buffer) < _CHECKED_HEAD.size or self.is_done:
            return None
        length, number, zeros, checksum = _CHECKED_HEAD.unpack_from(buffer)
        kind = self._expected(number)
        if any(zeros) or length > _MAX_BYTES[kind]:
            raise WireError(f"a record of {length} bytes, or with a reserved byte in use")
        end = _CHECKED_HEAD.size + length
        if len(buffer) < end:
            return None
        payload = bytes(buffer[_CHECKED_HEAD.size : end])
        self._chain = _extend(_extend(self._chain, bytes(buffer[: _HEAD.size])), payload)
        if self._chain != checksum:
            raise WireError("a record doesn't match its checksum")
        del buffer[:end]
        self._seen += 1
        return kind, payload

    def _expected(self, number: int) -> _Type:
        allowed = ((_Type.HELLO,), (_Type.OFFER,), (_Type.CHUNK, _Type.END))[min(self._seen, 2)]
        for kind in allowed:
            if number == kind:
                return kind
        raise WireError(f"a record of type {number} where one of type {int(allowed[0])} belongs")


def _decode_offer(payload: bytes) -> Offer:
    try:
        values: Any = msgpack.unpackb(payload, max_array_len=16, max_map_len=0, max_ext_len=0)
    except Exception as error:  # whatever msgpack makes of it: the bytes are a stranger's
        raise WireError("an offer that isn't msgpack") from error
    if type(values) is not list or len(values) != 6 or type(values[5]) is not bytes:
        raise WireError("an offer of another form")
    group, term, index, meta_term, time_ms, extra = values
    check_numbers((group, term, index, meta_term, time_ms))
    if not index > 0 or not 0 < meta_term <= term:
        raise WireError(f"an offer in term {term} of a snapshot that ends at {index}@{meta_term}")
    return Offer(GroupId(group), Term(term), SnapshotMeta(Index(index), Term(meta_term), time_ms), extra)
