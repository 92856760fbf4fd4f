"""Opening frames: limits, kinds, and errors of one bounded line."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgpack
import pytest

from raftkv.wire import frames
from raftkv.wire.errors import WireError
from raftkv.wire.frames import FrameKind, check_name, open_frame, pack_frame, show


def test_a_frame_is_its_kind_and_its_items() -> None:
    assert open_frame(pack_frame(FrameKind.STATUS, [{"a": 1}, b"x"])) == (FrameKind.STATUS, [{"a": 1}, b"x"])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "non-empty array"),
        ({}, "non-empty array"),
        (1, "non-empty array"),
        ([9], "unknown frame kind 9"),
        ([True], "unknown frame kind True"),
        ([None], "unknown frame kind None"),
        ([[]], "unknown frame kind a list"),
        ([1.0], "unknown frame kind 1.0"),
    ],
)
def test_not_a_frame(value: Any, says: str) -> None:
    with pytest.raises(WireError, match=says):
        open_frame(msgpack.packb(value))


@pytest.mark.parametrize(
    "value",
    [
        [1, "x" * 5000],
        [1, *([0] * frames.MAX_ARRAY_ITEMS)],
        [1, {str(key): 0 for key in range(1025)}],
        [1, msgpack.ExtType(5, b"x")],
        [1, msgpack.Timestamp(0)],
        [1, {1: 2}],
    ],
    ids=["text", "array", "map", "ext", "timestamp", "number as a key"],
)
def test_over_a_limit(value: Any) -> None:
    with pytest.raises(WireError, match="not msgpack"):
        open_frame(msgpack.packb(value))


def test_frame_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pack_frame(FrameKind.ENVELOPES, [b"x" * 100])
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(WireError, match="over the limit of 100"):
        open_frame(frame)
    with pytest.raises(WireError, match="over the limit of 100"):
        pack_frame(FrameKind.ENVELOPES, [b"x" * 100])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(WireError, match="not msgpack"):
        open_frame(pack_frame(FrameKind.STATUS, [{}]) + b"\x00")


def test_a_small_frame_cannot_ask_for_much_memory() -> None:
    """Each of many nested arrays claims to be long: what is set aside for them stays bounded."""
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            open_frame(b"\xdd\x00\x01\x00\x00" * 500)
        with pytest.raises(WireError):
            open_frame(b"\xdf\x00\x00\x04\x00\xa1a" * 500)
        with pytest.raises(WireError):
            open_frame(b"\xc6\x7f\xff\xff\xff" + b"x" * 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600 << 20


# What takes one to four bytes in a frame and many more in memory, 65,535 times over in each of many arrays.
SMALL_THINGS = {
    "empty arrays": b"\x90",
    "empty maps": b"\x80",
    "arrays of one": b"\x91\xc0",
    "maps of one": b"\x81\xa1a\xc0",
    "short texts": b"\xa2ab",
    "numbers": b"\xcd\x30\x39",
}


@pytest.mark.parametrize("name", SMALL_THINGS)
def test_a_large_frame_takes_memory_in_proportion(name: str) -> None:
    """Uncounted, empty arrays would take 64 times the frame."""
    row = b"\xdc\xff\xff" + SMALL_THINGS[name] * 0xFFFF
    rows = -(-(1 << 20) // len(row))
    frame = b"\xdc" + (rows + 1).to_bytes(2, "big") + b"\x01" + row * rows
    tracemalloc.start()
    try:
        with contextlib.suppress(WireError):
            open_frame(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * len(frame)


def test_names() -> None:
    check_name("a.B-9_")
    for bad in ("", "a b", "ä", "a\n", "x" * 65, None, 5, b"a", True):
        with pytest.raises(WireError, match="is not an id"):
            check_name(bad)


def test_shown_values_are_bounded() -> None:
    assert len(show("x" * 10_000)) < 60
    assert show([1] * 1000) == "a list"
    assert "\n" not in show("a\nb")
