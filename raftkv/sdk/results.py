"""What calls return: frozen, in Python's terms. Revisions are the cluster's, one counter for all keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raftkv.errors import RaftkvError
from raftkv.sdk.errors import error_from
from raftkv.sdk.forms import key_text, read_field

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A key as it was at one revision. ``value`` is b"" where only keys were asked for."""

    key: str
    value: bytes
    create_revision: int  # of the put that made it
    mod_revision: int  # of its last put
    version: int  # how often it was put since it was made
    lease: int | None = None  # it goes when this lease does
    content_type: str | None = None

    @property
    def text(self) -> str:
        """The value as UTF-8. Raises ``UnicodeDecodeError``."""
        return self.value.decode()

    def json(self) -> Any:
        """The value as JSON. Raises ``ValueError``."""
        return json.loads(self.value)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A key as one node has it, and what that node says of its answer."""

    item: Item | None  # None: there is no such key
    revision: int  # up to which the node had applied all
    node: str
    leader: str | None
    consistency: str  # as it was asked for
    staleness_s: float | None = None  # of stale reads: how old the answer may be


@dataclass(frozen=True, slots=True)
class PutResult:
    revision: int
    version: int
    created: bool


@dataclass(frozen=True, slots=True)
class DeleteResult:
    deleted: int  # how many keys
    revision: int


@dataclass(frozen=True, slots=True)
class IncrementResult:
    value: int  # after it
    version: int


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Of a range within a transaction. ``more``: the limit cut it short."""

    items: tuple[Item, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Items in the order asked for; ``prefixes``: with a delimiter, the "folders" among them."""

    items: tuple[Item, ...]
    revision: int  # that all pages of one run are of
    cursor: str | None  # asks for the next page
    prefixes: tuple[str, ...] = ()
    count: int | None = None  # of all keys in the range, where it was asked for


@dataclass(frozen=True, slots=True)
class TxnResult:
    """``results``: one for each operation of the branch that was taken."""

    succeeded: bool  # the compares held
    results: tuple[OpResult, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class BatchResult:
    """``results``: one for each operation; a ``RaftkvError``, not raised, for one that could not be done."""

    results: tuple[OpResult | RaftkvError, ...]
    revision: int


OpResult = PutResult | DeleteResult | IncrementResult | RangeResult | TxnResult | Item | None


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    lease: int
    ttl_s: float
    remaining_s: float | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A change that a watch saw. ``item`` of a put; ``previous`` where it was asked for."""

    kind: str  # "put" or "delete"
    key: str
    revision: int
    item: Item | None = None
    previous: Item | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, or leads an election, with the value it gave."""

    lease: int
    fencing_token: int
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class LockInfo:
    name: str
    holder: Holder | None
    waiters: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A live instance of a service."""

    service: str
    id: str
    address: str
    lease: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    create_revision: int = 0


# -- from the answers' JSON --------------------------------------------------------------------------------


def read_item(document: Document) -> Item:
    lease, content_type = document.get("lease"), document.get("content_type")
    return Item(
        key=key_text(read_field(document, "key")),
        value=read_field(document, "value"),
        create_revision=int(document.get("create_revision", 0)),
        mod_revision=int(document.get("mod_revision", 0)),
        version=int(document.get("version", 0)),
        lease=int(lease) if lease else None,
        content_type=content_type if isinstance(content_type, str) else None,
    )


def read_result(headers: Mapping[str, str], item: Item | None) -> ReadResult:
    staleness_ms = headers.get("Raftkv-Staleness-Ms")
    return ReadResult(
        item=item,
        revision=int(headers.get("Raftkv-Revision", 0)),
        node=headers.get("Raftkv-Node", ""),
        leader=headers.get("Raftkv-Leader"),
        consistency=headers.get("Raftkv-Consistency", "linearizable"),
        staleness_s=None if staleness_ms is None else int(staleness_ms) / 1000,
    )


def read_put(document: Document, revision: int = 0) -> PutResult:
    return PutResult(
        int(document.get("revision", revision)), int(document["version"]), bool(document["created"])
    )


def read_page(document: Document) -> Page:
    count = document.get("count")
    return Page(
        items=tuple(map(read_item, document.get("items", ()))),
        revision=int(document["revision"]),
        cursor=document.get("cursor"),
        prefixes=tuple(_prefix(each) for each in document.get("prefixes", ())),
        count=None if count is None else int(count),
    )


def _prefix(document: Any) -> str:
    if isinstance(document, str):
        return document
    return key_text(read_field(document, "prefix" if "prefix_base64" in document else "key"))


def read_txn(document: Document, revision: int | None = None) -> TxnResult:
    """``revision``: of the transaction that this one was part of."""
    own = int(document.get("revision", revision or 0))
    results = tuple(_read_result(each, own) for each in document["results"])
    return TxnResult(bool(document["succeeded"]), results, own)


def read_batch(document: Document) -> BatchResult:
    revision = int(document["revision"])
    return BatchResult(
        tuple(
            error_from(each["error"], 0, "a node") if "error" in each else _read_result(each, revision)
            for each in document["results"]
        ),
        revision,
    )


def _read_result(document: Document, revision: int) -> OpResult:
    match document:
        case {"put": put}:
            return read_put(put, revision)
        case {"get": {"items": items, **rest}}:
            return RangeResult(tuple(map(read_item, items)), bool(rest.get("more")))
        case {"get": {"item": item}}:
            return None if item is None else read_item(item)
        case {"delete": delete}:
            return DeleteResult(int(delete["deleted"]), int(delete.get("revision", revision)))
        case {"increment": increment}:
            return IncrementResult(int(increment["value"]), int(increment["version"]))
        case {"txn": txn}:
            return read_txn(txn, revision)
        case _:
            raise ValueError(f"not a result of an operation: {dict(document)}")


def read_lease(document: Document) -> LeaseInfo:
    remaining_ms = document.get("remaining_ms")
    return LeaseInfo(
        lease=int(document["lease"]),
        ttl_s=int(document.get("ttl_ms", 0)) / 1000,
        remaining_s=None if remaining_ms is None else int(remaining_ms) / 1000,
        keys=tuple(
            each if isinstance(each, str) else key_text(read_field(each, "key"))
            for each in document.get("keys", ())
        ),
    )


def read_holder(document: Document | None) -> Holder | None:
    if not document:
        return None
    return Holder(int(document["lease"]), int(document["fencing_token"]), read_field(document, "value"))


def read_instance(service: str, document: Document) -> Instance:
    return Instance(
        service=service,
        id=str(document["id"]),
        address=str(document["address"]),
        lease=int(document.get("lease") or 0),
        meta=dict(document.get("meta") or {}),
        create_revision=int(document.get("create_revision", 0)),
    )
