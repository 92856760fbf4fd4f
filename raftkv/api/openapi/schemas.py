"""The documents that requests and answers hold, by name.

A field of bytes is text, or base64 in ``name_base64`` where it isn't UTF-8. In msgpack it is bytes, under its
own name.
"""

from __future__ import annotations

from raftkv import errors
from raftkv.api.openapi.parameters import DURATION
from raftkv.api.openapi.parts import (
    MAX_REVISION,
    Schema,
    array,
    number,
    or_null,
    record,
    ref,
    text,
)
from raftkv.errors import Outcome, RaftkvError
from raftkv.kv.lease import MAX_CHOSEN_ID, MAX_ID
from raftkv.kv.txn import MAX_NUMBER

_BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_FLAG: Schema = {"type": "boolean"}
_KEY = text(minLength=1, pattern="^[^\\x00]")
_VALUE = text()
NAME = text(minLength=1)
_LEASE = number(1, MAX_ID)
_REVISION = number()
_TTL = text(pattern=DURATION, examples=["30s"])
_ADDRESS = text(examples=["10.0.0.4:9001"])
_NODE = text(pattern="^[A-Za-z0-9._-]{1,64}$")


def problem_codes() -> dict[str, int]:
    """Every ``code`` of an error of a node, and its status. NB: not all subclasses: programs have others."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind.code: kind.status for kind in kinds if issubclass(kind, RaftkvError)}


def _problem() -> Schema:
    return record(
        {
            "type": text(pattern="^urn:raftkv:error:"),
            "title": text(),
            "status": {"type": "integer"},
            "detail": text(),
            "code": text(enum=sorted(problem_codes())),
            "outcome": text(enum=[outcome.value for outcome in Outcome]),
        },
        {
            "leader": text(),
            "retry_after_ms": number(),
            "revision": number(),
            "mod_revision": number(),
            "oldest": number(),
            "holder": or_null(record({"lease": _LEASE, "fencing_token": _REVISION})),
            "allow": text(),
            "staleness_ms": number(),
            "size_bytes": number(),
            "quota_bytes": number(),
        },
        is_open=True,
    )


_ENVELOPE = record(
    {
        "create_revision": _REVISION,
        "mod_revision": _REVISION,
        "version": number(1),
        "lease": or_null(_LEASE),
        "content_type": or_null(text()),
    },
    data={"key": _KEY, "value": _VALUE},
)
_KEY_ONLY = record({}, data={"key": _KEY})
_PUT = record(
    {"revision": _REVISION, "version": number(1), "created": _FLAG}, {"lease": _LEASE}, data={"key": _KEY}
)
_DELETED = record({"deleted": number(), "revision": _REVISION})
_PAGE = record(
    {
        "items": array({"anyOf": [ref("Envelope"), ref("KeyOnly")]}),
        "cursor": or_null(text()),
        "revision": _REVISION,
    },
    {
        "count": number(),
        "prefixes": array({"anyOf": [text(), record({"prefix_base64": ref("Base64")})]}),
    },
)

# -- transactions and batches ------------------------------------------------------------------------------

_RANGES: list[tuple[Schema, Schema]] = [
    ({"prefix": text()}, {}),
    ({"start": text()}, {"end": text()}),
    ({"end": text()}, {}),
]
_RANGE_READ: Schema = {"limit": number(1, 1000, default=100), "reverse": _FLAG, "keys_only": _FLAG}


def _operation(name: str, fields: Schema, data: Schema, maybe_data: Schema | None = None) -> list[Schema]:
    """An operation nested, ``{"put": {...}}``, and flat, ``{"op": "put", ...}``."""
    never = [("lease", "ttl")] if "ttl" in fields else []
    heads: list[Schema] = [{}, {"op": {"const": name}}]
    nested, flat = (
        record(head, fields, data=data, maybe_data=maybe_data, never_together=never) for head in heads
    )
    return [record({name: nested}), flat]


def _operations() -> Schema:
    put_fields: Schema = {"content_type": or_null(text(maxLength=256)), "lease": _LEASE, "ttl": _TTL}
    by: Schema = {"by": number(-MAX_NUMBER, MAX_NUMBER, default=1)}
    kinds = [
        *_operation("put", put_fields, {"key": _KEY, "value": _VALUE}),
        *_operation("increment", by, {"key": _KEY}),
        *_operation("get", {}, {"key": _KEY}),
        *_operation("delete", {}, {"key": _KEY}),
    ]
    for data, maybe_data in _RANGES:
        kinds += _operation("get", _RANGE_READ, data, maybe_data)
        kinds += _operation("delete", {}, data, maybe_data)
    kinds.append(record({"txn": ref("Transaction")}))
    kinds.append(record({"op": {"const": "txn"}}, _branches()))
    return {"anyOf": kinds}


def _branches() -> Schema:
    return {"if": array(ref("Compare")), "then": array(ref("Operation")), "else": array(ref("Operation"))}


def _compares() -> Schema:
    relation: Schema = {"op": text(enum=["==", "!=", "<", ">"], default="==")}
    numbers = text(enum=["version", "create_revision", "mod_revision", "lease"])
    shapes = [
        ({}, {"target": {"const": "value"}, **relation}, {"value": _VALUE}),
        ({"target": numbers, "value": number(0, MAX_NUMBER)}, relation, {}),
        ({"target": {"const": "exists"}}, {"value": _FLAG, **relation}, {}),
    ]
    kinds = [record(needed, more, data={"key": _KEY, **data}) for needed, more, data in shapes]
    kinds += [
        record(needed, more, data={"end": text(), **data}, maybe_data={"key": text()})
        for needed, more, data in shapes
    ]
    return {"anyOf": kinds}


def _outcomes() -> Schema:
    kinds = {
        "put": record({"revision": _REVISION, "version": number(1), "created": _FLAG}, {"lease": _LEASE}),
        "get": {
            "anyOf": [
                record({"item": or_null(ref("Envelope"))}),
                record({"items": array({"anyOf": [ref("Envelope"), ref("KeyOnly")]}), "more": _FLAG}),
            ]
        },
        "delete": record({"deleted": number()}),
        "increment": record({"value": number(-MAX_NUMBER), "version": number(1)}),
        "txn": record({"succeeded": _FLAG, "results": array(ref("Result"))}),
        "error": record({"code": text(enum=sorted(problem_codes())), "detail": text()}),
    }
    return {"anyOf": [record({name: schema}) for name, schema in kinds.items()]}


# -- leases and what is made of them -----------------------------------------------------------------------

_LEASE_STATE: Schema = {"lease": _LEASE, "ttl_ms": number(), "remaining_ms": number(), "exact": _FLAG}
_LEASE_OR_TTL: Schema = {"oneOf": [{"required": ["lease"]}, {"required": ["ttl"]}]}
_HOLDER = record({"lease": _LEASE, "fencing_token": _REVISION}, data={"value": _VALUE})


def _queue(holder: str) -> Schema:
    return record(
        {holder: or_null(ref("Holder")), "waiters": number(), "revision": _REVISION}, data={"name": NAME}
    )


def _candidate() -> Schema:
    schema = record({}, {"ttl": _TTL, "lease": _LEASE}, maybe_data={"value": _VALUE})
    return {**schema, **_LEASE_OR_TTL}


INSTANCE = record(
    {
        "id": text(minLength=1),
        "address": text(minLength=1),
        "meta": {},
        "lease": _LEASE,
        "create_revision": _REVISION,
    }
)
_REGISTRATION = record(
    {"id": text(minLength=1, pattern="^[^\\x00]+$"), "address": text(minLength=1)},
    {"meta": {}, "ttl": _TTL, "lease": _LEASE},
)

# -- nodes -------------------------------------------------------------------------------------------------

_COUNT_OR_NULL = or_null(number())
_MEMBER_STATE = record(
    {
        "node": text(),
        "url": or_null(text()),
        "peer_address": or_null(text()),
        "connected": _FLAG,
        "version": or_null(text()),
        "protocol": _COUNT_OR_NULL,
        "machine_level": _COUNT_OR_NULL,
        "role": or_null(text()),
        "term": _COUNT_OR_NULL,
        "commit_index": _COUNT_OR_NULL,
        "last_applied": _COUNT_OR_NULL,
        "last_index": _COUNT_OR_NULL,
        "revision": _COUNT_OR_NULL,
        "lag": _COUNT_OR_NULL,
        "votes": _FLAG,
    },
    {"reported_ms_ago": _COUNT_OR_NULL},
)
_CLUSTER = record(
    {
        "cluster_id": text(),
        "node": text(),
        "leader": or_null(text()),
        "leader_url": or_null(text()),
        "term": number(),
        "members": array(_MEMBER_STATE),
        "quorum": number(1),
        "connected": number(),
        "joint": _FLAG,
        "may_lose": number(),
        "has_quorum": _FLAG,
    }
)
_MEMBER = record(
    {
        "id": text(),
        "address": text(),
        "role": text(enum=["leader", "voter", "learner", "leaving"]),
        "match_index": _COUNT_OR_NULL,
        "lag": _COUNT_OR_NULL,
        "healthy": _FLAG,
    },
    {"promote": _FLAG, "replaces": or_null(text())},
)
_MEMBERS: Schema = {
    "members": array(_MEMBER),
    "leader": or_null(text()),
    "joint": _FLAG,
    "index": number(),
    "committed": _FLAG,
}
_STATUS = record(
    {
        "node": text(),
        "version": text(),
        "role": text(),
        "term": number(),
        "leader": or_null(text()),
        "leader_url": or_null(text()),
        "cluster_id": text(),
        "url": text(),
        "peer_address": text(),
        "members": array(text()),
        "voters": array(text()),
        "learners": array(text()),
        "outgoing": array(text()),
        "commit_index": number(),
        "last_applied": number(),
        "last_index": number(),
        "revision": number(),
        "keys": number(),
        "alarm": or_null(text()),
        "staleness_ms": _COUNT_OR_NULL,
        "uptime_s": {"type": "number"},
        "links": {"type": "object", "additionalProperties": record({"connected": _FLAG})},
        "log": {"type": "object"},
        "snapshot": {"type": "object"},
        "disk": {"type": "object"},
    },
    is_open=True,
)
_READINESS = record(
    {"status": text(enum=["ready", "stopping", "no quorum"]), "node": text()},
    {
        "checks": record(
            {
                "quorum": _FLAG,
                "leader": or_null(text()),
                "links": {"type": "object", "additionalProperties": _FLAG},
            }
        )
    },
)

SCHEMAS: dict[str, Schema] = {
    "Problem": _problem(),
    "Base64": text(contentEncoding="base64", pattern=_BASE64),
    "Envelope": _ENVELOPE,
    "KeyOnly": _KEY_ONLY,
    "Put": _PUT,
    "Deleted": _DELETED,
    "Page": _PAGE,
    "Operation": _operations(),
    "Compare": _compares(),
    "Transaction": record({}, _branches()),
    "Batch": record({"ops": array(ref("Operation"))}),
    "Result": _outcomes(),
    "TransactionOutcome": record(
        {"succeeded": _FLAG, "revision": _REVISION, "results": array(ref("Result"))}
    ),
    "BatchOutcome": record({"revision": _REVISION, "results": array(ref("Result"))}),
    "Compaction": record({"revision": number(0, MAX_REVISION)}),
    "Compacted": record({"compacted": number(), "revision": _REVISION}),
    "Grant": record({"ttl": _TTL}, {"id": or_null(number(1, MAX_CHOSEN_ID))}),
    "Granted": record({"lease": _LEASE, "ttl_ms": number(), "revision": _REVISION}),
    "KeptAlive": record({"lease": _LEASE, "ttl_ms": number()}),
    "LeaseState": record({**_LEASE_STATE, "keys": array(record({}, data={"key": text(minLength=1)}))}),
    "Leases": record({"leases": array(record(_LEASE_STATE)), "after": or_null(_LEASE)}),
    "Candidate": _candidate(),
    "Holder": _HOLDER,
    "Place": record(
        {"lease": _LEASE, "fencing_token": _REVISION},
        data={"name": NAME, "value": _VALUE, "key": text(minLength=1)},
    ),
    "Lock": _queue("holder"),
    "Election": _queue("leader"),
    "Proclamation": record({}, maybe_data={"value": _VALUE}),
    "Registration": {**_REGISTRATION, **_LEASE_OR_TTL},
    "Registered": record({"id": text(), "lease": _LEASE, "revision": _REVISION}, data={"name": NAME}),
    "Services": record({"services": array(record({}, data={"name": NAME})), "revision": _REVISION}),
    "Instances": record({"instances": array(INSTANCE), "revision": _REVISION}, data={"name": NAME}),
    "Status": _STATUS,
    "Cluster": _CLUSTER,
    "Members": record(_MEMBERS),
    "NewMember": record(
        {"id": _NODE, "address": _ADDRESS},
        {"promote": _FLAG, "replaces": or_null(_NODE), "force": _FLAG},
    ),
    "NewAddress": record({"address": _ADDRESS}),
    "Transfer": record({}, {"id": or_null(text())}),
    "Transferred": record({"leader": text(), "term": number()}),
    "SnapshotTaken": record({"index": number(), "term": number(), "time_ms": number(), "bytes": number()}),
    "Liveness": record({"status": {"const": "ok"}, "node": text()}),
    "Readiness": _READINESS,
}
