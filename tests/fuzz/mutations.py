"""Sound bytes made unsound: bits flipped, parts cut, doubled, swapped and inserted, lengths that lie."""

from __future__ import annotations

from hypothesis import strategies as st

# What makes decoders trip: large lengths, nesting, extensions, ends of ranges, halves of characters.
NASTY = (
    b"\xdd\xff\xff\xff\xff",  # msgpack: an array, a map, bytes, text and an extension of 4 GiB
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x05",
    b"\xdc\xff\xff",
    b"\x91" * 40,
    b"\x81\xa0" * 40,
    b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
    b"\xc1",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",  # not a number
    b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xa2\xed\xa0",
    b"\xff",
    b"\x00" * 8,
    b"\xc0",
    b"\xc3",
)


@st.composite
def mutated(draw: st.DrawFn, sound: st.SearchStrategy[bytes], most: int = 4) -> bytes:
    """``sound`` bytes with 1 to ``most`` changes."""
    data = bytearray(draw(sound))
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8) | st.integers(0, len(data))))
        match draw(st.integers(0, 5)):
            case 0 if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[start:]
            case 2:
                del data[start:end]
            case 3:
                data[end:end] = data[start:end]
            case 4:
                data[start:end] = draw(st.sampled_from(NASTY))
            case _:
                data[start:end] = draw(st.binary(max_size=8))
    return bytes(data)
