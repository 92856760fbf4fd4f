"""An ordered map of bytes to bytes that no garbage collection and no growth ever stops for long.

The keys are cut into *buckets*, ranges of at most ``MAX_BUCKET_KEYS`` keys, found by bisection over the first
key of each. A bucket is a plain dict. It is put in order when somebody wants to walk through it, and stays so
until a key is added.

Why not one dict and a sorted list of keys?

- A dict that grows copies itself at once: 40 ms at 700,000 keys. A bucket splits in half a millisecond.
- A dict of nothing but bytes is invisible to the garbage collector (CPython 3.11 to 3.13 don't track it). One
  dict of a million keys would be, too; a list of them never is, and every full collection visits what it
  holds, one by one.
- A sorted list pays for its order with every new key, read or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice

# A dict of 682 keys just fits into a table of 1,024 places, one of 1,364 into one of 2,048; with one more,
# either table doubles.
MAX_BUCKET_KEYS = 1_364

Bucket = dict[bytes, bytes]


class OrderedRows:
    """Of three lists, one element each for every bucket, there is always at least one.

    ``_firsts[i] <= key < _firsts[i + 1]`` for every key in ``_buckets[i]``; ``_firsts[0]`` is empty, hence
    below every key. ``_is_sorted[i]``: the bucket's keys are known to stand in order.
    """

    def __init__(self, max_bucket_keys: int = MAX_BUCKET_KEYS) -> None:
        self._max_keys = max_bucket_keys
        self._half = max_bucket_keys // 2
        self._firsts: list[bytes] = [b""]
        self._buckets: list[Bucket] = [{}]
        self._is_sorted = [True]
        self._len = 0

    def __len__(self) -> int:
        return self._len

    def bucket(self, key: bytes) -> Bucket:
        """The one that ``key`` belongs in, whether it is there or not. What it holds may be replaced; keys
        are added and removed only by ``add`` and ``remove``.
        """
        return self._buckets[bisect_right(self._firsts, key) - 1]

    def add(self, key: bytes, row: bytes) -> None:
        """``key`` must be new."""
        at = bisect_right(self._firsts, key) - 1
        if len(self._buckets[at]) >= self._max_keys:
            self._split(at)
            at += key >= self._firsts[at + 1]
        self._buckets[at][key] = row
        self._is_sorted[at] = False
        self._len += 1

    def append(self, key: bytes, row: bytes) -> None:
        """``key`` must be beyond all others. Cheaper than ``add``: nothing is ever split or sorted."""
        if len(self._buckets[-1]) >= self._half:
            self._firsts.append(key)
            self._buckets.append({})
            self._is_sorted.append(True)
        self._buckets[-1][key] = row
        self._len += 1

    def remove(self, key: bytes) -> None:
        """``key`` must be there."""
        at = bisect_right(self._firsts, key) - 1
        bucket = self._buckets[at]
        del bucket[key]
        self._len -= 1
        if len(bucket) <= self._half // 4 and len(self._buckets) > 1:
            self._maybe_merge(at - 1 if at else at)

    def ascending(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from ``start`` on, each with its row. Nothing may be added or removed meanwhile."""
        at = bisect_right(self._firsts, start) - 1
        bucket = self._in_order(at)
        yield from islice(bucket.items(), bisect_left(list(bucket), start), None)
        for later in range(at + 1, len(self._buckets)):
            yield from self._in_order(later).items()

    def descending(self, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Keys below ``end``, from the last one (all, without an ``end``), as ``ascending``."""
        at = len(self._firsts) - 1 if end is None else bisect_right(self._firsts, end) - 1
        bucket = self._in_order(at)
        beyond = 0 if end is None else len(bucket) - bisect_left(list(bucket), end)
        yield from islice(reversed(bucket.items()), beyond, None)
        for earlier in range(at - 1, -1, -1):
            yield from reversed(self._in_order(earlier).items())

    def count(self, start: bytes, end: bytes | None) -> int:
        """How many keys there are from ``start`` to before ``end`` (None: to the last)."""
        if end is not None and end <= start:
            return 0
        first = bisect_right(self._firsts, start) - 1
        last = len(self._firsts) - 1 if end is None else bisect_right(self._firsts, end) - 1
        found = sum(map(len, self._buckets[first : last + 1]))
        found -= sum(key < start for key in self._buckets[first])
        return found if end is None else found - sum(key >= end for key in self._buckets[last])

    def pieces(self) -> list[Bucket]:
        """All its buckets. To free a million rows at once takes a tenth of a second; who holds these can let
        go of one after the other.
        """
        return self._buckets.copy()

    def _in_order(self, at: int) -> Bucket:
        bucket = self._buckets[at]
        if not self._is_sorted[at]:
            # NB: a tuple of the keys would do, too, but until the garbage collector has seen it for the first
            # time, it would look at each of them: 70 ms for 700 young tuples.
            bucket = self._buckets[at] = {key: bucket[key] for key in sorted(bucket)}
            self._is_sorted[at] = True
        return bucket

    def _split(self, at: int) -> None:
        bucket, keys = self._buckets[at], sorted(self._buckets[at])
        halves = [{key: bucket[key] for key in half} for half in (keys[: self._half], keys[self._half :])]
        self._buckets[at : at + 1] = halves
        self._is_sorted[at : at + 1] = [True, True]
        self._firsts.insert(at + 1, keys[self._half])

    def _maybe_merge(self, at: int) -> None:
        """The bucket and the next one, unless that would soon have to be split again."""
        bucket, following = self._buckets[at], self._buckets[at + 1]
        if bucket and following and len(bucket) + len(following) > self._half:
            return
        self._buckets[at : at + 2] = [{**bucket, **following}]
        self._is_sorted[at : at + 2] = [self._is_sorted[at] and self._is_sorted[at + 1]]
        del self._firsts[at + 1]
