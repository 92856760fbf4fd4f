"""``/v1/leases``, ``/v1/locks``, ``/v1/elections`` and ``/v1/services``."""

from __future__ import annotations

from raftkv.api.openapi import parameters as the
from raftkv.api.openapi.events import events_of
from raftkv.api.openapi.parts import (
    ONCE,
    READ,
    STORE,
    WRITE,
    Answer,
    Body,
    Operation,
    Operations,
    Parameter,
    forms_of,
    ref,
)
from raftkv.api.streams import NDJSON
from raftkv.errors import LeaseExists, LockHeld, NoSuchLease, NotHolder, TooLarge, TooManyLeases

_REPLY = ("Raftkv-Revision", "Raftkv-Node", "Raftkv-Leader")
_STREAM = (*_REPLY, "Raftkv-Consistency", "Raftkv-Staleness-Ms")


def _answer(description: str, schema: str) -> Answer:
    return Answer(description, forms_of(ref(schema)), _REPLY)


def _deleted(what: str) -> dict[int, Answer]:
    return {200: _answer(what, "Deleted")}


_LEASES: Operations = {
    ("GET", "/v1/leases"): Operation(
        "listLeases",
        "leases",
        "Leases in the order of their ids",
        {200: _answer("A page of them; `after` is for the next, null: there is none", "Leases")},
        (the.LEASES_LIMIT, the.AFTER, *the.CONSISTENCY),
        errors=READ,
    ),
    ("POST", "/v1/leases"): Operation(
        "grantLease",
        "leases",
        "Grant a lease",
        {201: _answer("It lives", "Granted")},
        (the.TIMEOUT, the.IDEMPOTENCY_KEY),
        Body(forms_of(ref("Grant"))),
        (*ONCE, LeaseExists, TooManyLeases, TooLarge),
    ),
    ("GET", "/v1/leases/{id}"): Operation(
        "getLease",
        "leases",
        "How long a lease lives yet, and the keys that go with it",
        {200: _answer("The lease", "LeaseState")},
        (the.LEASE_ID, *the.CONSISTENCY),
        errors=(*READ, NoSuchLease),
    ),
    ("DELETE", "/v1/leases/{id}"): Operation(
        "revokeLease",
        "leases",
        "End a lease now, and delete the keys that go with it, at one revision",
        _deleted("How many keys went with it"),
        (the.LEASE_ID, the.TIMEOUT, the.IDEMPOTENCY_KEY),
        errors=(*ONCE, NoSuchLease),
    ),
    ("POST", "/v1/leases/{id}/keepalive"): Operation(
        "keepLeaseAlive",
        "leases",
        "From now on the lease lives for its whole time again",
        {200: _answer("It lives", "KeptAlive")},
        (the.LEASE_ID, the.TIMEOUT),
        Body(forms_of({"type": "object", "maxProperties": 0}), required=False),
        (*WRITE, NoSuchLease, TooLarge),
    ),
}


def _queue(path: str, name: Parameter, of: str) -> Operations:
    """What locks and elections have in common."""
    tag = f"{of}s"
    wins = "Hold the lock" if of == "lock" else "Lead"
    gives_up = "Release the lock" if of == "lock" else "Resign"
    return {
        ("GET", path): Operation(
            f"get{of.capitalize()}",
            tag,
            "Who is first, and how many wait",
            {200: _answer("As it is", of.capitalize())},
            (name, *the.CONSISTENCY),
            errors=(*READ, TooLarge),
        ),
        ("POST", path): Operation(
            "acquireLock" if of == "lock" else "campaign",
            tag,
            f"{wins}, with a lease or a `ttl`, or wait in the queue for it",
            {200: _answer("It is yours while the lease lives; `fencing_token` tells grants apart", "Place")},
            (name, the.WAIT, the.TIMEOUT, the.IDEMPOTENCY_KEY),
            Body(forms_of(ref("Candidate"))),
            (*ONCE, LockHeld, NoSuchLease, TooManyLeases, TooLarge),
        ),
        ("DELETE", path): Operation(
            "releaseLock" if of == "lock" else "resign",
            tag,
            f"{gives_up}, or leave the queue: give `lease`, or `fencing_token`",
            _deleted("1, or 0: there was no such place any more"),
            (name, the.HOLDER_LEASE, the.FENCING_TOKEN, the.TIMEOUT),
            errors=(*WRITE, TooLarge),
        ),
    }


_ELECTIONS: Operations = {
    ("PUT", "/v1/elections/{name}"): Operation(
        "proclaim",
        "elections",
        "Say something else while leading",
        {200: _answer("It is said", "Place")},
        (the.ELECTION_NAME, the.HOLDER_LEASE, the.TIMEOUT),
        Body(forms_of(ref("Proclamation")), required=False),
        (*WRITE, NotHolder, TooLarge),
        "`lease` must be given: that with which it leads.",
    ),
    ("GET", "/v1/elections/{name}/observe"): Operation(
        "observe",
        "elections",
        "Who leads now, and each time that it is another, or says something else",
        {200: Answer("Events without end", {**events_of("LeaderEvent"), NDJSON: {}}, _STREAM)},
        (the.ELECTION_NAME, *the.CONSISTENCY),
        errors=(*READ, TooLarge),
    ),
}
_INSTANCES = Answer(
    "Those that live; as events without end with `watch=true`",
    {**forms_of(ref("Instances")), **events_of("InstancesEvent"), NDJSON: {}},
    _REPLY,
)
_SERVICES: Operations = {
    ("GET", "/v1/services"): Operation(
        "listServices",
        "services",
        "The names that have an instance",
        {200: _answer("The names", "Services")},
        the.CONSISTENCY,
        errors=READ,
    ),
    ("GET", "/v1/services/{name}"): Operation(
        "listInstances",
        "services",
        "The instances of a service",
        {200: _INSTANCES},
        (the.SERVICE_NAME, the.WATCH_SERVICE, *the.CONSISTENCY),
        errors=(*READ, TooLarge),
    ),
    ("POST", "/v1/services/{name}"): Operation(
        "registerInstance",
        "services",
        "List an instance while its lease lives, or replace the one of that id",
        {201: _answer("It is listed", "Registered")},
        (the.SERVICE_NAME, the.TIMEOUT, the.IDEMPOTENCY_KEY),
        Body(forms_of(ref("Registration"))),
        (*STORE, NoSuchLease, TooManyLeases),
    ),
    ("DELETE", "/v1/services/{name}/{id}"): Operation(
        "deregisterInstance",
        "services",
        "List an instance no more",
        _deleted("1, or 0: there was none"),
        (the.SERVICE_NAME, the.INSTANCE_ID, the.TIMEOUT, the.IDEMPOTENCY_KEY),
        errors=(*ONCE, TooLarge),
    ),
}

OPERATIONS: Operations = {
    **_LEASES,
    **_queue("/v1/locks/{name}", the.LOCK_NAME, "lock"),
    **_queue("/v1/elections/{name}", the.ELECTION_NAME, "election"),
    **_ELECTIONS,
    **_SERVICES,
}
