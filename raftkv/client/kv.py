"""The key-value calls: what is asked for each, and its answer in Python's terms.

Keys and values are bytes. Every call raises what ``Cluster.read`` or ``Cluster.write`` raises.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from raftkv.client.errors import OutcomeUnknown, Problem, Refused
from raftkv.client.exchange import Reply, Request
from raftkv.client.failover import IDEMPOTENCY_KEY, Cluster

Range = tuple[tuple[str, bytes], ...]
"""``(("prefix", p),)``, or ``("start", a)`` and ``("end", b)``, of which one may be missing."""


@dataclass(frozen=True, slots=True)
class Page:
    """Items in the requested order, each the envelope the node sent, or ``{"prefix"}`` (``"prefix_base64"``)
    of a folder where it belongs; ``cursor`` asks for the next page.
    """

    items: tuple[dict[str, Any], ...]
    cursor: str | None
    revision: int


def key_path(key: bytes) -> str:
    """``/v1/kv/...`` of a key: all but RFC 3986's unreserved characters and "/" are percent-encoded."""
    return "/v1/kv/" + quote(key, safe="/")


def put(
    cluster: Cluster,
    key: bytes,
    value: bytes,
    *,
    if_revision: int | None = None,
    if_absent: bool = False,
    ttl: str | None = None,
    lease: int | None = None,
    content_type: str | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Set a key: ``{"key", "revision", "version", "created"}``, and ``"lease"`` where it has one. A condition
    that fails raises ``Refused``.
    """
    query: list[tuple[str, str | bytes]] = []
    if if_revision is not None:
        query.append(("if_revision", str(if_revision)))
    if if_absent:
        query.append(("if_absent", "true"))
    if ttl is not None:
        query.append(("ttl", ttl))
    if lease is not None:
        query.append(("lease", str(lease)))
    headers = (*_once(token), *(() if content_type is None else (("Content-Type", content_type),)))
    return _written(cluster.write(Request("PUT", key_path(key), tuple(query), value, headers)))


def delete(
    cluster: Cluster, key: bytes, *, if_revision: int | None = None, token: str | None = None
) -> dict[str, Any]:
    """Remove a key: ``{"deleted": 0 | 1, "revision"}``."""
    query = () if if_revision is None else (("if_revision", str(if_revision)),)
    return _written(cluster.write(Request("DELETE", key_path(key), query, headers=_once(token))))


def delete_range(cluster: Cluster, keys: Range, *, token: str | None = None) -> dict[str, Any]:
    """Remove all keys of a range, at once: ``{"deleted": n, "revision"}``."""
    return _written(cluster.write(Request("DELETE", "/v1/kv", keys, headers=_once(token))))


def submit(cluster: Cluster, what: str, document: bytes, *, token: str | None = None) -> dict[str, Any]:
    """A transaction or batch as JSON (``what``: ``txn`` or ``batch``), and its answer."""
    return _written(cluster.write(Request("POST", f"/v1/{what}", (), document, _once(token))))


def _once(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else ((IDEMPOTENCY_KEY, token),)


@dataclass(frozen=True, slots=True)
class Freshness:
    """Which state an answer must be of; see docs/consistency.md."""

    consistency: str = "linearizable"  # or "lease", "stale"
    max_staleness: str | None = None  # a duration, with "stale" only
    min_revision: int = 0
    revision: int = 0  # as it was then; 0: as it is

    @property
    def query(self) -> list[tuple[str, str | bytes]]:
        found: list[tuple[str, str | bytes]] = [("consistency", self.consistency)]
        found += [] if self.max_staleness is None else [("max_staleness", self.max_staleness)]
        found += [("min_revision", str(self.min_revision))] if self.min_revision else []
        return [*found, ("revision", str(self.revision))] if self.revision else found


def get(cluster: Cluster, key: bytes, freshness: Freshness = Freshness()) -> bytes:
    """A key's value, byte for byte. Raises ``Refused`` with status 404 where there is none."""
    return cluster.read(Request("GET", key_path(key), tuple(freshness.query))).body


def get_envelope(cluster: Cluster, key: bytes, freshness: Freshness = Freshness()) -> dict[str, Any]:
    """A key's value with its revisions, as JSON shows it (``value`` or ``value_base64``)."""
    query = (*freshness.query, ("format", "json"))
    return _document(cluster.read(Request("GET", key_path(key), query)))


def count(cluster: Cluster, keys: Range, freshness: Freshness = Freshness()) -> dict[str, Any]:
    """How many keys there are: ``{"count", "revision"}``."""
    query = [*freshness.query, *keys, ("limit", "0"), ("count", "true")]
    document = _document(cluster.read(Request("GET", "/v1/kv", tuple(query))))
    return {"count": document.get("count"), "revision": document.get("revision")}


def pages(
    cluster: Cluster,
    keys: Range,
    *,
    limit: int | None,
    page_items: int,
    keys_only: bool,
    reverse: bool,
    delimiter: bytes | None = None,
    freshness: Freshness = Freshness(),
) -> Iterator[Page]:
    """The keys of a range in key order, ``limit`` of them at most, ``page_items`` a request. With a
    ``delimiter``, keys that have it behind the prefix (or start) as one folder.
    """
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        wanted = page_items if left is None else min(left, page_items)
        query: list[tuple[str, str | bytes]] = [*keys, ("limit", str(wanted))]
        query += freshness.query if freshness != Freshness() else []
        query += [("keys_only", "true")] if keys_only else []
        query += [("reverse", "true")] if reverse else []
        query += [] if delimiter is None else [("delimiter", delimiter)]
        query += [("cursor", cursor)] if cursor is not None else []
        document = _document(cluster.read(Request("GET", "/v1/kv", tuple(query))))
        items = _in_order(document, reverse=reverse)
        cursor = document.get("cursor")
        yield Page(items, cursor, int(document.get("revision", 0)))
        if cursor is None:
            return
        left = None if left is None else left - len(items)


def _in_order(document: dict[str, Any], *, reverse: bool) -> tuple[dict[str, Any], ...]:
    items, prefixes = document.get("items", ()), document.get("prefixes", ())
    if not prefixes:
        return tuple(items)
    folders = [{"prefix": each} if isinstance(each, str) else each for each in prefixes]
    return tuple(sorted((*items, *folders), key=name_bytes, reverse=reverse))


def name_bytes(item: Mapping[str, Any]) -> bytes:
    """The key of an item of a page, or the prefix of a folder."""
    return item_bytes(item, "prefix") or item_bytes(item, "key")


def item_bytes(item: Mapping[str, Any], field: str) -> bytes:
    """``key`` or ``value`` of an envelope, whichever of its two forms it came in; b"" where it is missing."""
    if (encoded := item.get(f"{field}_base64")) is not None:
        return b64decode(encoded)
    return str(item.get(field) or "").encode()


def _document(reply: Reply) -> dict[str, Any]:
    try:
        document = json.loads(reply.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        detail = f"{reply.endpoint} did not answer with a JSON object: is it a raftkv node?"
        raise Refused(Problem(reply.status, "bad_answer", detail, None, None))
    return document


def _written(reply: Reply) -> dict[str, Any]:
    try:
        return _document(reply)
    except Refused as error:
        # Whoever answered 2xx without a result did something, but not what a raftkv node does.
        raise OutcomeUnknown(error.problem.detail) from error
