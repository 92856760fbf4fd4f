"""What a node says of itself and of the cluster, and what changes who its members are."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from raftkv.api.openapi import parameters as the
from raftkv.api.openapi.parts import READ, Answer, Body, Operation, Operations, json_of, ref, text
from raftkv.errors import (
    ChangeRefused,
    NoQuorum,
    NoSuccessor,
    ShuttingDown,
    SnapshotFailed,
    TimedOut,
    TooLarge,
    TooManyRequests,
)

_PLAIN = {CONTENT_TYPE_PLAIN_0_0_4: text()}
_CHANGE = (ChangeRefused, NoQuorum, TimedOut, ShuttingDown, TooManyRequests)
_CHANGED = {200: Answer("The members as they are then", json_of(ref("Members")))}


def _answer(description: str, schema: str) -> dict[int, Answer]:
    return {200: Answer(description, json_of(ref(schema)))}


_CLUSTER: Operations = {
    ("GET", "/v1/status"): Operation(
        "getStatus", "nodes", "This node's own state", _answer("As it is", "Status")
    ),
    ("GET", "/v1/cluster"): Operation(
        "getCluster", "nodes", "All members as this node sees them", _answer("As it is", "Cluster")
    ),
    ("POST", "/v1/cluster/leader"): Operation(
        "transferLeadership",
        "nodes",
        "Hand the lead over to a node, or to whoever is fittest",
        _answer("Who leads now", "Transferred"),
        (the.TIMEOUT,),
        Body(json_of(ref("Transfer")), required=False),
        (NoSuccessor, NoQuorum, TimedOut, ShuttingDown, TooManyRequests, TooLarge),
    ),
    ("GET", "/v1/cluster/members"): Operation(
        "listMembers", "members", "The members", _answer("As they are", "Members"), (the.TIMEOUT,)
    ),
    ("POST", "/v1/cluster/members"): Operation(
        "addMember",
        "members",
        "Add a member: it learns, and votes once it has caught up",
        _CHANGED,
        (the.TIMEOUT,),
        Body(json_of(ref("NewMember"))),
        (*_CHANGE, TooLarge),
    ),
    ("PUT", "/v1/cluster/members/{id}"): Operation(
        "moveMember",
        "members",
        "Change where the other nodes find a member",
        _CHANGED,
        (the.NODE_ID, the.TIMEOUT),
        Body(json_of(ref("NewAddress"))),
        (*_CHANGE, TooLarge),
    ),
    ("DELETE", "/v1/cluster/members/{id}"): Operation(
        "removeMember",
        "members",
        "Remove a member",
        _CHANGED,
        (the.NODE_ID, the.TIMEOUT, the.FORCE),
        errors=_CHANGE,
    ),
    ("POST", "/v1/cluster/members/{id}/promote"): Operation(
        "promoteMember",
        "members",
        "Let a learner vote",
        _CHANGED,
        (the.NODE_ID, the.TIMEOUT, the.FORCE),
        errors=_CHANGE,
    ),
}
_SNAPSHOTS: Operations = {
    ("GET", "/v1/snapshot"): Operation(
        "downloadSnapshot",
        "nodes",
        "A backup of everything, as of one moment",
        {
            200: Answer(
                "The bytes of a snapshot; without its last record it is cut off",
                {"application/vnd.raftkv.snapshot": {}},
                (
                    "Raftkv-Revision",
                    "Raftkv-Node",
                    "Raftkv-Leader",
                    "Raftkv-Consistency",
                    "Raftkv-Staleness-Ms",
                    "Raftkv-Keys",
                    "Content-Disposition",
                ),
            )
        },
        the.CONSISTENCY,
        errors=READ,
    ),
    ("POST", "/v1/snapshot"): Operation(
        "takeSnapshot",
        "nodes",
        "Take a snapshot on this node's disk now",
        _answer("It is durable", "SnapshotTaken"),
        (the.TIMEOUT,),
        errors=(SnapshotFailed, TimedOut),
    ),
}
_PROBES: Operations = {
    ("GET", "/livez"): Operation(
        "getLiveness",
        "nodes",
        "The process answers, whatever the cluster does",
        _answer("It does", "Liveness"),
        description="Any query is ignored.",
    ),
    ("GET", "/readyz"): Operation(
        "getReadiness",
        "nodes",
        "Whether this node can serve",
        {
            200: Answer("It can", json_of(ref("Readiness"))),
            503: Answer("It can't", json_of(ref("Readiness"))),
        },
        (the.VERBOSE,),
        errors=(TooManyRequests, ShuttingDown),
    ),
    ("GET", "/metrics"): Operation(
        "getMetrics",
        "nodes",
        "What this node counts of itself",
        {200: Answer("As Prometheus reads it", _PLAIN)},
    ),
    ("GET", "/openapi.json"): Operation(
        "getDescription", "nodes", "This document", {200: Answer("It", json_of({"type": "object"}))}
    ),
}

OPERATIONS: Operations = {**_CLUSTER, **_SNAPSHOTS, **_PROBES}
