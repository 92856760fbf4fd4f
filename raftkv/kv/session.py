"""Batches, and the sessions that let each be applied exactly once.

A node gathers what its clients ask for in one turn into a *batch*. It may have to hand the same batch to
several leaders, because it can't know which of them got it committed; the log may then hold it more than
once. So a batch is named:

- ``node`` and ``incarnation``: which life of which node made it. A node's incarnation grows with every start,
  so a new life needs no memory of the old one, and ends it: batches of an older incarnation are dropped from
  then on.
- ``seq``: 1, 2, 3 ... within that life.
- ``low``: every seq below it is settled, as far as its node cares (applied, or given up). One that turns up
  later is dropped, so the table needs to remember only what was applied at or above it.

The table is part of the replicated state: a function of the log alone. It holds one row a node, and in a row
the numbers applied since the oldest batch under way: bounded by ``replica.ReplicaLimits.max_batch_span``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from struct import pack, unpack
from typing import Any

import msgpack

BATCH_VERSION = 1


@dataclass(frozen=True, slots=True)
class BatchId:
    node: str
    incarnation: int
    seq: int
    low: int


_packer = msgpack.Packer(autoreset=False)


def encode_batch(batch: BatchId, commands: Sequence[bytes]) -> bytes:
    """msgpack ``[version, node, incarnation, seq, low, [command ...]]``; the commands are spliced in as they
    are.
    """
    packer = _packer
    packer.reset()
    packer.pack_array_header(6)
    for part in (BATCH_VERSION, batch.node, batch.incarnation, batch.seq, batch.low):
        packer.pack(part)
    packer.pack_array_header(len(commands))
    return bytes(packer.bytes()) + b"".join(commands)


def decode_batch(data: bytes) -> tuple[BatchId, list[Any]]:
    """The inverse; commands come back as decoded msgpack values. Raises ValueError on anything else."""
    try:
        version, node, incarnation, seq, low, commands = msgpack.unpackb(data, use_list=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"not a batch: {error}") from None
    if version != BATCH_VERSION or not isinstance(commands, list) or not isinstance(node, str):
        raise ValueError(f"not a batch of version {BATCH_VERSION}")
    if not (type(version) is type(incarnation) is type(seq) is type(low) is int):  # a bool is no number here
        raise ValueError("a batch is named by integers")
    return BatchId(node, incarnation, seq, low), commands


@dataclass(slots=True)
class _Row:
    incarnation: int
    low: int = 1
    applied: set[int] = field(default_factory=set)  # membership tests only: its order decides nothing


class Sessions:
    """Which batches have been applied."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def admit(self, batch: BatchId) -> bool:
        """Whether ``batch`` is to be applied now; notes it as applied if so."""
        row = self._rows.get(batch.node)
        if row is None or batch.incarnation > row.incarnation:
            row = self._rows[batch.node] = _Row(batch.incarnation)
        if batch.incarnation < row.incarnation or batch.seq < row.low or batch.seq in row.applied:
            return False
        row.applied.add(batch.seq)
        if batch.low > row.low:
            row.low = batch.low
            row.applied = {seq for seq in row.applied if seq >= batch.low}
        return True

    def incarnation(self, node: str) -> int:
        """The latest run of ``node`` that a batch was applied from; 0: none ever was."""
        row = self._rows.get(node)
        return 0 if row is None else row.incarnation

    def rows(self) -> list[list[Any]]:
        """The table in the order of its nodes: ``[node, incarnation, low, applied]`` each, ``applied`` as 8
        little-endian bytes for each number, in order.
        """
        return [
            [node, row.incarnation, row.low, pack(f"<{len(row.applied)}Q", *sorted(row.applied))]
            for node, row in sorted(self._rows.items())
        ]

    def add_row(self, values: list[Any]) -> None:
        """One of ``rows``, in the same order. Raises ValueError for what none of them can be."""
        match values:
            case [str(node), int(incarnation), int(low), bytes(packed)] if len(packed) % 8 == 0:
                applied = unpack(f"<{len(packed) // 8}Q", packed)
            case _:
                raise ValueError("not a session")
        if type(incarnation) is not int or type(low) is not int or low < 1:
            raise ValueError("a session's numbers are impossible")
        if applied and (applied[0] < low or any(one >= other for one, other in pairwise(applied))):
            raise ValueError("a session's applied numbers are out of order, or below its mark")
        if self._rows and node <= next(reversed(self._rows)):
            raise ValueError("sessions out of order")
        self._rows[node] = _Row(incarnation, low, set(applied))
