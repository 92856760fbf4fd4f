"""What requests may say beside their bodies: query parameters, headers, and what varies in a path."""

from __future__ import annotations

from raftkv.api.openapi.parts import Parameter, number, text
from raftkv.kv.lease import MAX_ID, MAX_TTL_MS, MIN_TTL_MS

DURATION = "^[0-9]{1,9}(ms|s|m|h)$"
_MAX_REVISION = 10**18 - 1  # of a parameter: eighteen digits
_MAX_INDEX = (1 << 63) - 1


def _flag(name: str, description: str) -> Parameter:
    return Parameter(name, {"type": "boolean", "default": False}, description)


def _duration(name: str, description: str, *, component: str = "", example: str = "5s") -> Parameter:
    schema = text(pattern=DURATION, examples=[example])
    return Parameter(name, schema, description, component=component)


def _name(name: str, of: str, component: str) -> Parameter:
    return Parameter(
        name,
        text(minLength=1, pattern="^[^\\x00]+$"),
        f"{of}: any bytes but NUL, percent-encoded, a / as %2F",
        "path",
        component,
    )


KEY = Parameter(
    "key",
    text(minLength=1, pattern="^[^\\x00]"),
    "The key: any bytes, percent-encoded; a / may be written as it is. It doesn't begin with a NUL byte.",
    "path",
    "Key",
)
LEASE_ID = Parameter("id", number(1, MAX_ID), "The lease", "path", "LeaseId")
LOCK_NAME = _name("name", "The lock's name", "LockName")
ELECTION_NAME = _name("name", "The election's name", "ElectionName")
SERVICE_NAME = _name("name", "The service's name", "ServiceName")
INSTANCE_ID = _name("id", "The instance's id", "InstanceId")
NODE_ID = Parameter("id", text(pattern="^[A-Za-z0-9._-]{1,64}$"), "The node", "path", "NodeId")

TIMEOUT = _duration("timeout", "How long the request may wait inside; 5s unless configured otherwise")
REDIRECT = _flag("redirect", "307 to the leader's own URL, instead of an answer through this node")
CONSISTENCY = (
    TIMEOUT,
    Parameter(
        "consistency",
        text(enum=["linearizable", "lease", "stale"], default="linearizable"),
        "How fresh the answer must be",
    ),
    _duration("max_staleness", "With `consistency=stale`: at most so old, else 503 `too_stale`"),
    Parameter("min_revision", number(0, _MAX_REVISION), "Wait until the node has applied this revision"),
)

PREFIX = Parameter("prefix", text(), "Keys that begin so")
START = Parameter("start", text(), "The first key of the range")
END = Parameter("end", text(minLength=1), "The key after the last one of the range")
RANGE = (PREFIX, START, END)
REVISION = Parameter("revision", number(1, _MAX_REVISION), "Read what was at this revision")
LIMIT = Parameter(
    "limit",
    number(0, 1000, default=100),
    "Items of a page; 0 only with `count=true`, to count and list nothing",
    component="PageLimit",
)
CURSOR = Parameter("cursor", text(), "Where the page before ended: its `cursor`")
KEYS_ONLY = _flag("keys_only", "Without values")
REVERSE = _flag("reverse", "From the last key to the first")
DELIMITER = Parameter(
    "delimiter", text(), "Keys that have this after the prefix are folded into one of `prefixes`"
)
COUNT = _flag("count", "Also how many keys the whole range has")
FORMAT = Parameter("format", text(enum=["raw", "json"]), "`json`: the envelope, as by `Accept`")
WAIT_FOR_CHANGE = _duration(
    "wait", "Answer once the key has changed after `since`, or 304 when so long nothing did"
)
SINCE = Parameter("since", number(0, _MAX_REVISION), "With `wait`: changes after this one; else from now on")

IF_REVISION = Parameter("if_revision", number(0, 10**18 - 1), "As `If-Match`; 0: the key is absent")
IF_ABSENT = _flag("if_absent", "As `If-None-Match: *`")
_ETAGS = '^[ \\t]*(\\*|[ \\t,]*(W/)?"[^"]*"[ \\t]*(,[ \\t,]*(W/)?"[^"]*"[ \\t]*)*)[ \\t]*$'
IF_MATCH = Parameter(
    "If-Match",
    text(examples=['"42"'], pattern=_ETAGS),
    "Only if the key is at one of these revisions; `*`: if it is there",
    "header",
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    text(examples=["*"], pattern=_ETAGS),
    "Only if the key is at none of these revisions; `*`: if it is absent",
    "header",
)
CONDITIONS = (IF_MATCH, IF_NONE_MATCH, IF_REVISION, IF_ABSENT)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    text(minLength=1, maxLength=256, pattern="^[!-~]([ -~]*[!-~])?$"),
    "The request may be sent again with the same one for an hour, to any node, and is done once",
    "header",
)
TTL = _duration(
    "ttl",
    f"The key goes when this time is over: {MIN_TTL_MS} ms to {MAX_TTL_MS // 3_600_000} h",
    example="30s",
)
LEASE = Parameter("lease", number(1, MAX_ID), "The key goes with this lease")

WATCHED_KEY = Parameter("key", text(minLength=1, pattern="^[^\\x00]"), "This one key", component="WatchedKey")
FROM = Parameter("from", number(1, _MAX_REVISION), "Changes of this revision and later; else from now on")
PREV = _flag("prev", "Also what was before, as `prev`")
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    text(pattern="^[0-9]{1,18}(\\.[1-9][0-9]{0,8})?$"),
    "Go on after the event with this id; it goes before `from`",
    "header",
)
WATCH_SERVICE = _flag("watch", "Server-sent events: the instances now, and each time that they change")

LEASES_LIMIT = Parameter("limit", number(1, 1000, default=1000), "Of a page", component="LeasesLimit")
AFTER = Parameter("after", number(0, _MAX_REVISION), "From the lease after this one on")
WAIT = _duration(
    "wait", "Wait in the queue so long, at most an hour; else 409 at once", component="QueueWait"
)
HOLDER_LEASE = Parameter(
    "lease", number(1, MAX_ID), "Whose place it is: the lease that it goes with", component="HolderLease"
)
FENCING_TOKEN = Parameter("fencing_token", number(1, _MAX_REVISION), "Whose place it is: its fencing token")
FORCE = _flag("force", "Even where too few voters that are heard from would be left")
VERBOSE = _flag("verbose", "With what was looked at")
