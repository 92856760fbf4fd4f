"""Views of a range against what a sorted dict says, now and of before."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.kv.history import History
from raftkv.kv.store import Store, prefix_end
from raftkv.kv.view import View

KEYS = st.text("ab/", min_size=1, max_size=5).map(str.encode) | st.sampled_from([b"\xff", b"\xff/\xff", b"/"])
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=30)


@given(
    changes=CHANGES,
    back=st.integers(0, 10),
    prefix=st.sampled_from([b"", b"a", b"a/", b"/", b"\xff"]),
    delimiter=st.sampled_from([b"", b"/", b"b/", b"\xff"]),
    limit=st.integers(1, 4),
    reverse=st.booleans(),
    max_bytes=st.none() | st.integers(0, 12),
)
@settings(max_examples=400, deadline=None)
def test_pages_and_counts(
    *,
    changes: list[tuple[bytes, bytes | None]],
    back: int,
    prefix: bytes,
    delimiter: bytes,
    limit: int,
    reverse: bool,
    max_bytes: int | None,
) -> None:
    store = Store()
    store.history = History(0)
    states: list[dict[bytes, bytes]] = [{}]
    for key, value in changes:
        before = store.revision
        if value is None:
            store.delete(key)
        else:
            store.put(key, value, None)
        if store.revision > before:
            now = {**states[-1], key: value}
            states.append({each: kept for each, kept in now.items() if kept is not None})
    revision = max(0, store.revision - back)
    there = {key: value for key, value in states[revision].items() if key.startswith(prefix)}

    start, end = prefix, prefix_end(prefix)
    assert View(store, revision, start, end).count() == len(there)
    seen: list[Any] = []
    while True:
        listing = View(store, revision, start, end).page(
            limit, reverse=reverse, delimiter=delimiter, prefix=prefix, max_bytes=max_bytes
        )
        page = [
            *((key, item.value) for key, item in listing.items),
            *((each, None) for each in listing.folders),
        ]
        assert 0 < len(page) <= limit or listing.rest is None
        seen += sorted(page, key=lambda pair: pair[0], reverse=reverse)
        if listing.rest is None:
            break
        start, end = (start, listing.rest) if reverse else (listing.rest, end)
    assert seen == sorted(expected(there, prefix, delimiter), key=lambda pair: pair[0], reverse=reverse)


def expected(there: dict[bytes, bytes], prefix: bytes, delimiter: bytes) -> list[Any]:
    folded: dict[bytes, bytes | None] = {}
    for key, value in there.items():
        parts = key[len(prefix) :].split(delimiter, 1) if delimiter else [b""]
        if len(parts) == 2:
            folded[prefix + parts[0] + delimiter] = None
        else:
            folded[key] = value
    return list(folded.items())
