"""A frame: one msgpack array ``[kind, item, ...]`` in one WebSocket message; and the checks all frames share.

Rules:
- Frames come from whoever can reach the port. Whatever the bytes are, opening them gives a frame or a
  ``WireError``, in memory bounded by the limits below.
- Kinds and limits are the protocol: whoever changes one changes ``docs/protocol.md`` and the golden frames of
  the tests too.
- A bool is not a number here, though it is one in Python.

Must not know: what the items of a frame mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

import msgpack

from raftkv.wire.errors import WireError

PROTOCOL_VERSION = 3  # the newest this release speaks
OLDEST_VERSION = 1  # and the oldest

MAX_FRAME_BYTES = 64 << 20
MAX_ARRAY_ITEMS = 1 << 16  # envelopes in a frame, entries in an AppendEntries, batches in a Propose
MAX_MAP_ITEMS = 1 << 10
MAX_TEXT_BYTES = 4 << 10
MAX_CONTAINERS = 1 << 17  # arrays and maps in a large frame: an honest one has far fewer
MAX_NUMBER = (1 << 63) - 1  # indexes, terms, rounds and times fit in a signed 64-bit integer


class FrameKind(IntEnum):
    """The first item of a frame. Never renumber."""

    HELLO = 0
    ENVELOPES = 1
    STATUS = 2


_FRAME_KINDS = {int(kind): kind for kind in FrameKind}

# Beyond this size arrays and maps are counted, which costs a call for each. An empty array is one byte here
# and 64 in memory: uncounted, a frame of 32 MiB of them would take 2 GiB, and the event loop for seconds.
_LARGE_FRAME_BYTES = 512 << 10

# NB: one Packer for all frames: making one costs as much as packing a small frame. It keeps its buffer, hence
# as much memory as the largest frame took. pack() resets it, after an error too.
_pack = msgpack.Packer(use_bin_type=True).pack

_name = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch


def pack_frame(kind: FrameKind, items: Iterable[Any]) -> bytes:
    """The bytes of a frame. Raises ``WireError`` where an item can't be packed, or a limit is passed."""
    values: list[Any] = [kind, *items]
    if len(values) > MAX_ARRAY_ITEMS:
        raise WireError(f"a frame of {len(values) - 1} items is over the limit of {MAX_ARRAY_ITEMS - 1}")
    try:
        frame: bytes = _pack(values)
    except (TypeError, ValueError, OverflowError) as exc:
        raise WireError(f"a {kind.name.lower()} frame can't be packed: {exc}") from exc
    if len(frame) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(frame)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return frame


def open_frame(data: bytes) -> tuple[FrameKind, list[Any]]:
    """The frame's kind and its items, which are still to be checked. Raises ``WireError``."""
    if len(data) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(data)} bytes is over the limit of {MAX_FRAME_BYTES}")
    count = _counter() if len(data) > _LARGE_FRAME_BYTES else None
    try:
        values: Any = msgpack.unpackb(
            data,
            list_hook=count,
            object_hook=count,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_ARRAY_ITEMS,
            max_map_len=MAX_MAP_ITEMS,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=MAX_FRAME_BYTES,
            max_ext_len=0,
        )
    except Exception as exc:  # whatever msgpack makes of it: the bytes are a stranger's
        raise WireError(f"not msgpack: {_one_line(exc)}") from exc
    if type(values) is not list or not values:
        raise WireError("not a frame: not a non-empty array")
    number = values[0]
    if type(number) is not int or number not in _FRAME_KINDS:
        raise WireError(f"unknown frame kind {show(number)}")
    del values[0]
    return _FRAME_KINDS[number], values


def _counter() -> Callable[[Any], Any]:
    """A hook for msgpack that gives up beyond ``MAX_CONTAINERS`` arrays and maps."""
    left = MAX_CONTAINERS

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MAX_CONTAINERS} arrays and maps")
        return container

    return count


def check_numbers(values: Iterable[Any]) -> None:
    """Each is an int (not a bool) with 0 <= value < 2**63, or ``WireError``."""
    for value in values:
        if type(value) is not int or not 0 <= value <= MAX_NUMBER:
            raise WireError(f"{show(value)} is not a number from 0 to 2**63-1")


def check_name(value: Any) -> None:
    """``value`` is a node or cluster id, 1-64 of ``A-Z a-z 0-9 . _ -``, or ``WireError``."""
    if type(value) is not str or _name(value) is None:
        raise WireError(f"{show(value)} is not an id (1-64 of A-Z a-z 0-9 . _ -)")


def show(value: Any) -> str:
    """``value`` for an error's line: bounded, without line breaks. Containers only by their type: they may be
    as large as a frame.
    """
    if isinstance(value, int | float | bool | None):
        return repr(value)
    if isinstance(value, str | bytes):
        return repr(value[:40])
    return f"a {type(value).__name__}"


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:120] or type(exc).__name__
