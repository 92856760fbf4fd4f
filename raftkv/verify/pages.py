"""What a page says of keys: of those it lists, and of those it would have listed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

from raftkv.verify.history import Get, List, Listed, Operation, Read


def split(page: List, listed: Listed, ordered: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Of the keys ``ordered``, ascending: those that the page covers, and those in its range beyond its last.

    A page that isn't full covers its whole range.
    """
    start = bisect_left(ordered, page.start)
    end = len(ordered) if page.end is None else max(start, bisect_left(ordered, page.end))
    if not listed.items or len(listed.items) < page.limit:
        return list(ordered[start:end]), []
    last = listed.items[-1][0]
    if page.reverse:
        cut = min(max(start, bisect_left(ordered, last)), end)
        return list(ordered[cut:end]), list(ordered[start:cut])
    cut = min(max(start, bisect_right(ordered, last)), end)
    return list(ordered[start:cut]), list(ordered[cut:end])


def reads(operation: Operation, ordered: Sequence[bytes]) -> Iterator[tuple[bytes, Operation]]:
    """An answered page as one read of each key that it covers, absent ones too."""
    page, listed = operation.action, operation.result
    if not isinstance(page, List) or not isinstance(listed, Listed):
        return
    items = dict(listed.items)
    for key in sorted({*items, *split(page, listed, ordered)[0]}):
        yield key, replace(operation, action=Get(key), result=Read(items.get(key), listed.revision))
