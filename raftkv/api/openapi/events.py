"""What streams are made of. Each event of ``text/event-stream`` is described as an object with its fields, of
which ``data`` is JSON; in ``application/x-ndjson`` a line is that JSON with ``event`` and ``id`` beside it.
"""

from __future__ import annotations

from raftkv.api.openapi.parts import Schema, array, number, or_null, record, ref, text
from raftkv.api.openapi.schemas import INSTANCE, NAME
from raftkv.api.streams import SSE

_PROGRESS = record({"revision": number()}, {"end": text()})
_COMPACTED = record({"oldest": number(), "end": text()})
_ID = text(pattern="^[0-9]+(\\.[0-9]+)?$")


def _event(names: list[str], data: Schema, *, has_id: bool) -> Schema:
    held: Schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    needed: Schema = {"event": text(enum=names), "data": held}
    return record(needed | {"id": _ID}) if has_id else record(needed)


def _changes() -> Schema:
    before = {"prev": or_null(ref("Envelope"))}
    key = {"key": text(minLength=1)}
    put: Schema = {
        "revision": number(),
        "create_revision": number(),
        "mod_revision": number(),
        "version": number(1),
        "lease": or_null(number(1)),
        "content_type": or_null(text()),
    }
    return {
        "anyOf": [
            _event(["put"], record(put, before, data={**key, "value": text()}), has_id=True),
            _event(["delete"], record({"revision": number()}, before, data=key), has_id=True),
            _event(["progress"], _PROGRESS, has_id=True),
            _event(["compacted"], _COMPACTED, has_id=False),
        ]
    }


def _states(name: str, data: Schema) -> Schema:
    return {"anyOf": [_event([name], data, has_id=False), _event(["progress"], _PROGRESS, has_id=False)]}


EVENTS: dict[str, Schema] = {
    "WatchEvent": _changes(),
    "LeaderEvent": _states("leader", record({"leader": or_null(ref("Holder"))}, data={"name": NAME})),
    "InstancesEvent": _states("instances", record({"instances": array(INSTANCE)}, data={"name": NAME})),
}


def events_of(name: str) -> dict[str, Schema]:
    """An answer that is a stream of one of ``EVENTS``."""
    return {SSE: ref(name)}
