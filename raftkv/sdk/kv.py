"""The key-value calls, transactions and batches of ``AsyncClient``.

Every call takes ``timeout`` in seconds instead of the client's, and raises ``raftkv.errors.RaftkvError``,
whose ``outcome`` says whether a write may have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from raftkv.errors import BadRequest, KeyNotFound
from raftkv.sdk.calling import Ask, Calls, Query
from raftkv.sdk.errors import read_error
from raftkv.sdk.forms import Data, Key, data_bytes, duration, key_bytes, key_path
from raftkv.sdk.operations import Increment, Operation, Txn, TxnParts
from raftkv.sdk.results import (
    BatchResult,
    DeleteResult,
    IncrementResult,
    Item,
    Page,
    PutResult,
    ReadResult,
    TxnResult,
    read_batch,
    read_item,
    read_page,
    read_put,
    read_result,
    read_txn,
)

_SCAN_ITEMS = 500  # a page
_LONGEST_POLL_S = 50.0  # nodes refuse one longer than their longest request
_AS_JSON = ("format", "json")


class KvCalls(Calls):
    async def get(
        self,
        key: Key,
        *,
        revision: int | None = None,
        consistency: str | None = None,
        max_staleness: float | None = None,
        min_revision: int | None = None,
        timeout: float | None = None,
    ) -> Item | None:
        """The key's item, None where there is none; as it was at ``revision``, where that is given.

        ``consistency``: ``linearizable`` (the default), ``lease`` or ``stale``; ``max_staleness`` in seconds
        and ``min_revision`` as in docs/consistency.md. Raises ``RevisionCompacted`` for a revision that is
        forgotten, ``TooStale`` and ``NotReached`` where the node that is asked is behind.
        """
        query = _read_query(revision, consistency, max_staleness, min_revision)
        found = await self._read(Ask("GET", key_path(key), (_AS_JSON, *query), absent_ok=True), timeout)
        return None if found is None else found.item

    async def read(
        self,
        key: Key,
        *,
        revision: int | None = None,
        consistency: str | None = None,
        max_staleness: float | None = None,
        min_revision: int | None = None,
        timeout: float | None = None,
    ) -> ReadResult:
        """As ``get``, with what the node says of its answer: how far it was, and how stale it may be."""
        query = _read_query(revision, consistency, max_staleness, min_revision)
        found = await self._read(Ask("GET", key_path(key), (_AS_JSON, *query), absent_ok=True), timeout)
        assert found is not None  # 304 is for those who poll
        return found

    async def poll(
        self, key: Key, *, since: int | None = None, wait: float = 30.0, timeout: float | None = None
    ) -> ReadResult | None:
        """Wait until the key was put or deleted after the revision ``since`` (None: from now on); None where
        it wasn't within ``wait`` seconds. To go on, ask again with ``since`` the ``revision`` of the result.

        ``timeout``: beyond ``wait``, for the answer. A watch misses nothing between; this may.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            left_s = min(_LONGEST_POLL_S, max(0.001, deadline - loop.time()))
            query: Query = (_AS_JSON, ("wait", duration(left_s)))
            if since is not None:
                query = (*query, ("since", str(since)))
            found = await self._read(Ask("GET", key_path(key), query, wait_s=left_s, absent_ok=True), timeout)
            # NB: a node that stops says too early that nothing has changed.
            if found is not None or loop.time() >= deadline:
                return found

    async def _read(self, ask: Ask, timeout: float | None) -> ReadResult | None:
        """None for 304."""
        reply = await self._caller.call(ask, timeout)
        if reply.status == 304:
            return None
        if reply.status != 404:
            return read_result(reply.headers, read_item(reply.json()))
        error = read_error(reply.status, reply.headers.get("Content-Type", ""), reply.body, reply.endpoint)
        if not isinstance(error, KeyNotFound):
            raise error
        return read_result(reply.headers, None)

    async def put(
        self,
        key: Key,
        value: Data,
        *,
        content_type: str | None = None,
        if_revision: int | None = None,
        if_absent: bool = False,
        ttl: float | None = None,
        lease: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> PutResult:
        """Set a key. ``ttl``, in seconds: it goes when they are over; ``lease``: it goes with that one.

        Raises ``ConditionFailed`` where ``if_revision`` or ``if_absent`` doesn't hold.
        """
        query: list[tuple[str, str | bytes]] = []
        if if_revision is not None:
            query.append(("if_revision", str(if_revision)))
        if if_absent:
            query.append(("if_absent", "true"))
        if ttl is not None:
            query.append(("ttl", duration(ttl)))
        if lease is not None:
            query.append(("lease", str(lease)))
        headers = None if content_type is None else {"Content-Type": content_type}
        ask = self._caller.write(
            "PUT",
            key_path(key),
            tuple(query),
            headers=headers,
            body=data_bytes(value),
            key=idempotency_key,
        )
        return read_put((await self._caller.call(ask, timeout)).json())

    async def delete(
        self,
        key: Key,
        *,
        if_revision: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove a key; ``deleted`` is 0 where there was none. Raises ``ConditionFailed``."""
        query: Query = () if if_revision is None else (("if_revision", str(if_revision)),)
        ask = self._caller.write("DELETE", key_path(key), query, key=idempotency_key)
        document = (await self._caller.call(ask, timeout)).json()
        return DeleteResult(int(document["deleted"]), int(document["revision"]))

    async def delete_range(
        self,
        *,
        prefix: Key | None = None,
        start: Key | None = None,
        end: Key | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove the keys under ``prefix``, or from ``start`` to before ``end``, at one revision."""
        if prefix is None and start is None and end is None:
            raise BadRequest("give either prefix, or start and end")
        query = _range_query(prefix, start, end)
        ask = self._caller.write("DELETE", "/v1/kv", tuple(query), key=idempotency_key)
        document = (await self._caller.call(ask, timeout)).json()
        return DeleteResult(int(document["deleted"]), int(document["revision"]))

    async def page(
        self,
        *,
        prefix: Key | None = None,
        start: Key | None = None,
        end: Key | None = None,
        limit: int = 100,
        cursor: str | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        delimiter: str | None = None,
        count: bool = False,
        revision: int | None = None,
        consistency: str | None = None,
        max_staleness: float | None = None,
        min_revision: int | None = None,
        timeout: float | None = None,
    ) -> Page:
        """One page of keys, in their order. ``cursor``: of the page before, asked for with the same range.
        With a ``delimiter``, keys that go on behind it are told of in ``prefixes`` alone, once each.
        """
        query = [*_range_query(prefix, start, end), ("limit", str(limit))]
        query += [(name, "true") for name, wanted in _flags(reverse, keys_only, count) if wanted]
        if cursor is not None:
            query.append(("cursor", cursor))
        if delimiter is not None:
            query.append(("delimiter", delimiter))
        query += _read_query(revision, consistency, max_staleness, min_revision)
        return read_page(await self._look("/v1/kv", tuple(query), timeout))

    async def scan(
        self,
        prefix: Key | None = None,
        *,
        start: Key | None = None,
        end: Key | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        revision: int | None = None,
        consistency: str | None = None,
        max_staleness: float | None = None,
        min_revision: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Item]:
        """All items of a range, in the order of their keys and as they were at one revision; all keys where
        nothing is said. ``consistency`` and what goes with it are as for ``get``, ``timeout`` is for each
        page.
        """
        cursor: str | None = None
        while True:
            page = await self.page(
                prefix=prefix,
                start=start,
                end=end,
                limit=_SCAN_ITEMS,
                cursor=cursor,
                reverse=reverse,
                keys_only=keys_only,
                revision=revision,
                consistency=consistency,
                max_staleness=max_staleness,
                min_revision=min_revision,
                timeout=timeout,
            )
            for item in page.items:
                yield item
            cursor = page.cursor
            if cursor is None:
                return

    async def increment(
        self, key: Key, by: int = 1, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> IncrementResult:
        """Add to a decimal number; an absent key counts as 0."""
        txn = Txn(then=(Increment(key, by),))
        result = (await self.commit(txn, idempotency_key=idempotency_key, timeout=timeout)).results[0]
        assert isinstance(result, IncrementResult)
        return result

    def txn(self) -> TxnBuilder:
        """``client.txn().when(Value("k") == b"v").then(Put("k", b"w")).otherwise(Get("k")).commit()``"""
        return TxnBuilder(self)

    async def commit(
        self, txn: Txn, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> TxnResult:
        """Do all of one branch of ``txn``, or nothing, at one revision."""
        document = await self._post("/v1/txn", txn.fields(), key=idempotency_key, timeout=timeout)
        return read_txn(document)

    async def batch(
        self,
        operations: Iterable[Operation],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> BatchResult:
        """Do each operation for itself, in order, in one request."""
        ops = [each.document() for each in operations]
        return read_batch(await self._post("/v1/batch", {"ops": ops}, key=idempotency_key, timeout=timeout))

    async def compact(self, revision: int, *, timeout: float | None = None) -> int:
        """Forget what was before ``revision``. Returns the oldest revision that can be read."""
        document = await self._post("/v1/compact", {"revision": revision}, timeout=timeout)
        return int(document["compacted"])


class TxnBuilder(TxnParts):
    def __init__(self, calls: KvCalls) -> None:
        super().__init__()
        self.calls = calls

    async def commit(self, *, idempotency_key: str | None = None, timeout: float | None = None) -> TxnResult:
        """See ``AsyncClient.commit``."""
        return await self.calls.commit(self.txn, idempotency_key=idempotency_key, timeout=timeout)


def _range_query(prefix: Key | None, start: Key | None, end: Key | None) -> list[tuple[str, str | bytes]]:
    if prefix is not None and (start is not None or end is not None):
        raise BadRequest("give either prefix, or start and end")
    named = (("prefix", prefix), ("start", start), ("end", end))
    return [(name, key_bytes(key)) for name, key in named if key is not None]


def _flags(reverse: bool, keys_only: bool, count: bool) -> Sequence[tuple[str, bool]]:
    return (("reverse", reverse), ("keys_only", keys_only), ("count", count))


def _read_query(
    revision: int | None, consistency: str | None, max_staleness: float | None, min_revision: int | None
) -> Query:
    query: list[tuple[str, str | bytes]] = []
    if revision is not None:
        query.append(("revision", str(revision)))
    if consistency is not None:
        query.append(("consistency", consistency))
    if max_staleness is not None:
        query.append(("max_staleness", duration(max_staleness)))
    if min_revision is not None:
        query.append(("min_revision", str(min_revision)))
    return tuple(query)
