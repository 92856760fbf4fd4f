"""``/v1/kv``, ``/v1/txn``, ``/v1/batch``, ``/v1/compact`` and ``/v1/watch``."""

from __future__ import annotations

from raftkv.api.form import JSON, MSGPACK
from raftkv.api.openapi import parameters as the
from raftkv.api.openapi.events import events_of
from raftkv.api.openapi.parts import (
    ONCE,
    READ,
    STORE,
    Answer,
    Body,
    Operation,
    Operations,
    forms_of,
    json_of,
    ref,
)
from raftkv.api.streams import NDJSON
from raftkv.errors import (
    ConditionFailed,
    FutureRevision,
    KeyNotFound,
    NoSuchLease,
    NotANumber,
    NumberTooLarge,
    RevisionCompacted,
    TooLarge,
    TooManyLeases,
    UpgradeUnfinished,
)

_OCTETS = "application/octet-stream"
_REPLY = ("Raftkv-Revision", "Raftkv-Node", "Raftkv-Leader")
_FRESH = (*_REPLY, "Raftkv-Consistency", "Raftkv-Staleness-Ms")
_OF_KEY = ("ETag", "Raftkv-Create-Revision", "Raftkv-Mod-Revision", "Raftkv-Version", "Raftkv-Lease")
_VALUE_OR_ENVELOPE = {
    "anyOf": [ref("Envelope"), {"description": "the value as it is, where it was put with this type"}]
}

_GET = Operation(
    "getKey",
    "keys",
    "Read a key",
    {
        200: Answer(
            "The value as it is, with the type that it was put with; or its envelope",
            {_OCTETS: {}, JSON: _VALUE_OR_ENVELOPE, MSGPACK: _VALUE_OR_ENVELOPE, "*/*": {}},
            (*_FRESH, *_OF_KEY),
        ),
        304: Answer("The key is at that revision, or didn't change within `wait`", headers=_FRESH),
    },
    (
        the.KEY,
        *the.CONSISTENCY,
        the.FORMAT,
        the.REVISION,
        the.WAIT_FOR_CHANGE,
        the.SINCE,
        the.IF_MATCH,
        the.IF_NONE_MATCH,
    ),
    errors=(
        *READ,
        UpgradeUnfinished,
        KeyNotFound,
        FutureRevision,
        RevisionCompacted,
        ConditionFailed,
        TooLarge,
    ),
)
_PUT_ANSWERS = {
    status: Answer(description, json_of(ref("Put")), (*_REPLY, "ETag"))
    for status, description in ((200, "The value was replaced"), (201, "The key is new"))
}
_PUT = Operation(
    "putKey",
    "keys",
    "Write a key: the body is the value",
    _PUT_ANSWERS,
    (the.KEY, the.TIMEOUT, *the.CONDITIONS, the.TTL, the.LEASE, the.IDEMPOTENCY_KEY),
    Body({_OCTETS: {}, "*/*": {}}, required=False),
    (*STORE, ConditionFailed, NoSuchLease, TooManyLeases),
    "Content-Type is kept, and what a GET answers with.",
)
_DELETE = Operation(
    "deleteKey",
    "keys",
    "Delete a key",
    {200: Answer("1 was deleted, or 0: there was none", json_of(ref("Deleted")), _REPLY)},
    (the.KEY, the.TIMEOUT, *the.CONDITIONS, the.IDEMPOTENCY_KEY),
    errors=(*ONCE, ConditionFailed, TooLarge),
)
_LIST = Operation(
    "listKeys",
    "keys",
    "A page of keys, in order; all pages of a run are of one revision",
    {200: Answer("A page", forms_of(ref("Page")), _FRESH)},
    (
        *the.RANGE,
        the.LIMIT,
        the.CURSOR,
        the.KEYS_ONLY,
        the.REVERSE,
        the.DELIMITER,
        the.COUNT,
        the.REVISION,
        *the.CONSISTENCY,
    ),
    errors=(*READ, FutureRevision, RevisionCompacted),
    description="`prefix`, or `start` and `end`; without either, all keys.",
)
_DELETE_RANGE = Operation(
    "deleteKeys",
    "keys",
    "Delete a range, at one revision",
    {200: Answer("How many there were", forms_of(ref("Deleted")), _REPLY)},
    (*the.RANGE, the.TIMEOUT, the.IDEMPOTENCY_KEY),
    errors=(*ONCE, TooLarge),
    description="`prefix`, or `start` and `end`: one of them must be given.",
)
_TXN = Operation(
    "transact",
    "transactions",
    "Compare, then do one list of operations or the other: all of it at one revision, or nothing",
    {200: Answer("What became of it", forms_of(ref("TransactionOutcome")), _REPLY)},
    (the.TIMEOUT, the.IDEMPOTENCY_KEY),
    Body(forms_of(ref("Transaction"))),
    (*STORE, NotANumber, NumberTooLarge, NoSuchLease, TooManyLeases),
)
_BATCH = Operation(
    "batch",
    "transactions",
    "Many operations, each for itself",
    {200: Answer("What became of each, in their order", forms_of(ref("BatchOutcome")), _REPLY)},
    (the.TIMEOUT, the.IDEMPOTENCY_KEY),
    Body(forms_of(ref("Batch"))),
    STORE,
)
_COMPACT = Operation(
    "compact",
    "transactions",
    "Forget what was before a revision",
    {200: Answer("The oldest revision that can still be read", forms_of(ref("Compacted")), _REPLY)},
    (the.TIMEOUT, the.IDEMPOTENCY_KEY),
    Body(forms_of(ref("Compaction"))),
    (*ONCE, FutureRevision, RevisionCompacted, TooLarge),
)
_WATCH = Operation(
    "watch",
    "keys",
    "What changes, in order, each change once",
    {
        200: Answer(
            "Events without end: `put`, `delete`, `progress` and `compacted`",
            {**events_of("WatchEvent"), NDJSON: {}},
            _FRESH,
        )
    },
    (
        the.WATCHED_KEY,
        *the.RANGE,
        the.FROM,
        the.PREV,
        *the.CONSISTENCY,
        the.LAST_EVENT_ID,
    ),
    errors=(*READ, UpgradeUnfinished, RevisionCompacted),
    description="`key`, `prefix`, or `start` and `end`: one of them must be given; `prefix=` is all keys.",
)

OPERATIONS: Operations = {
    ("GET", "/v1/kv/{key}"): _GET,
    ("PUT", "/v1/kv/{key}"): _PUT,
    ("DELETE", "/v1/kv/{key}"): _DELETE,
    ("GET", "/v1/kv"): _LIST,
    ("DELETE", "/v1/kv"): _DELETE_RANGE,
    ("POST", "/v1/txn"): _TXN,
    ("POST", "/v1/batch"): _BATCH,
    ("POST", "/v1/compact"): _COMPACT,
    ("GET", "/v1/watch"): _WATCH,
}
