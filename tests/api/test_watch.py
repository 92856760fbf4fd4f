"""``GET /v1/watch``: which events come, in which form, and where a client goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import pytest

from raftkv.kv.commands import encode_put, encode_txn
from raftkv.kv.history import History
from tests.api.client import Connection, Headers
from tests.api.node import DEADLINE_S, LIMITS, LoopThread, RestNode
from tests.api.stream import Stream, compact

Watch = Callable[..., Stream]


@pytest.fixture
def watch(node: RestNode) -> Iterator[Watch]:
    """Opens streams, with the machine at its second level."""
    with Connection(node) as client:
        assert client.request("GET", "/v1/kv/none?wait=1ms").status == 304
    streams: list[Stream] = []

    def begin(query: str = "?prefix=", headers: Headers = ()) -> Stream:
        streams.append(Stream(node, query, headers))
        return streams[-1]

    yield begin
    for stream in streams:
        stream.close()


def put(client: Connection, key: str, value: str = "v") -> int:
    revision: int = client.request("PUT", f"/v1/kv/{key}", body=value.encode()).json["revision"]
    return revision


def names(events: list[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    return [(event["event"], event["id"], event.get("key", "")) for event in events]


def test_a_change_comes_as_it_happens(client: Connection, watch: Watch) -> None:
    stream = watch()
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store"
    assert stream.event() == {"event": "progress", "id": "0", "revision": 0}
    put(client, "a", "x")
    item = {"key": "a", "value": "x", "create_revision": 1, "mod_revision": 1, "version": 1}
    event = stream.event()
    assert {**event, **item} == event
    assert (event["event"], event["id"], event["revision"]) == ("put", "1", 1)
    assert "prev" not in event
    client.request("DELETE", "/v1/kv/a")
    assert stream.event() == {"event": "delete", "id": "2", "revision": 2, "key": "a"}


def test_what_was_there_before(client: Connection, watch: Watch) -> None:
    stream = watch("?key=a&prev=true")
    stream.event()
    put(client, "a", "x")
    assert stream.event()["prev"] is None
    put(client, "a", "y")
    assert stream.event()["prev"]["value"] == "x"
    client.request("DELETE", "/v1/kv/a")
    prev = stream.event()["prev"]
    assert (prev["value"], prev["mod_revision"], prev["version"]) == ("y", 2, 2)


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("?prefix=", ["a", "ab", "abc", "b"]),
        ("?key=ab", ["ab"]),
        ("?prefix=ab", ["ab", "abc"]),
        ("?start=ab", ["ab", "abc", "b"]),
        ("?start=ab&end=b", ["ab", "abc"]),
        ("?end=ab", ["a"]),
    ],
)
def test_only_what_is_watched(client: Connection, watch: Watch, query: str, keys: list[str]) -> None:
    """Live, and from the past."""
    live = watch(query)
    live.event()
    revisions = {key: put(client, key) for key in ("b", "abc", "ab", "a")}
    order = sorted(keys, key=revisions.__getitem__)
    past = watch(f"{query}&from=1")
    past.event()
    for stream in (live, past):
        found: list[str] = []
        while len(found) < len(keys):
            found += [event["key"] for event in stream.events()]
        assert found == order


def test_lines_of_json(client: Connection, watch: Watch) -> None:
    stream = watch("?key=a", [("Accept", "application/x-ndjson")])
    assert stream.headers["content-type"] == "application/x-ndjson"
    assert json.loads(stream.chunk()) == {"event": "progress", "id": "0", "revision": 0}
    put(client, "a")
    line = stream.chunk()
    assert line.endswith(b"}\n")
    assert json.loads(line)["event"] == "put"


def test_bytes_that_are_no_text(client: Connection, watch: Watch) -> None:
    stream = watch("?key=%ff")
    stream.event()
    client.request("PUT", "/v1/kv/%FF", body=b"\x00\xff")
    event = stream.event()
    assert (event["key_base64"], event["value_base64"]) == ("/w==", "AP8=")


def transact(node: RestNode, loop_thread: LoopThread, *keys: str) -> None:
    """Put ``keys`` at one revision."""
    puts = [encode_put(key.encode(), b"v") for key in keys]
    loop_thread.run(node.service.propose(encode_txn([], puts, []), 1000.0))


def test_a_revision_comes_in_one_piece(node: RestNode, loop_thread: LoopThread, watch: Watch) -> None:
    stream = watch("?prefix=k")
    stream.event()
    transact(node, loop_thread, "k1", "other", "k2", "k3")
    expected = [("put", "1.1", "k1"), ("put", "1.2", "k2"), ("put", "1", "k3")]
    assert names(stream.events()) == expected


@pytest.mark.parametrize(
    ("after", "rest"),
    [("0", ["k1", "k2", "k3", "k4"]), ("1.1", ["k2", "k3", "k4"]), ("1.2", ["k3", "k4"]), ("1", ["k4"])],
)
def test_going_on_after_any_event(
    node: RestNode, loop_thread: LoopThread, watch: Watch, after: str, rest: list[str]
) -> None:
    """Nothing is lost or doubled. The header counts, whatever the query says."""
    watch()
    transact(node, loop_thread, "k1", "other", "k2", "k3")
    transact(node, loop_thread, "k4")
    stream = watch("?prefix=k&from=1", [("Last-Event-ID", after)])
    first = stream.event()
    assert (first["event"], first["id"], first["revision"]) == ("progress", after, int(after == "1"))
    events = stream.events()
    assert [event["key"] for event in events] == rest
    assert [event["id"] for event in events][-2:] == ["1", "2"][-len(rest) :]


def test_going_on_within_a_revision_that_this_node_has_not_seen(
    node: RestNode, loop_thread: LoopThread, watch: Watch
) -> None:
    """As where another node, which was ahead, died in the middle of it."""
    stream = watch("?prefix=k", [("Last-Event-ID", "1.2")])
    assert stream.event() == {"event": "progress", "id": "1.2", "revision": 0}
    loop_thread.loop.call_soon_threadsafe(node.service.hub.beat)
    assert stream.event() == {"event": "progress", "id": "1.2", "revision": 0}
    transact(node, loop_thread, "k1", "other", "k2", "k3")
    assert names(stream.events()) == [("put", "1", "k3")]


def test_from_a_revision_to_come(client: Connection, watch: Watch) -> None:
    stream = watch("?prefix=&from=3")
    assert stream.event() == {"event": "progress", "id": "2", "revision": 2}
    for key in ("a", "b", "c"):
        put(client, key)
    assert names(stream.events()) == [("put", "3", "c")]


def test_much_comes_in_whole_revisions(client: Connection, watch: Watch) -> None:
    """More than is pulled at a time."""
    watch()
    for number in range(40):
        put(client, f"k{number}", "x" * 4000)
    stream = watch("?prefix=&from=1")
    stream.event()
    found: list[str | None] = []
    pieces = 0
    while len(found) < 40:
        found += [event["id"] for event in stream.events()]
        pieces += 1
    assert found == [str(number + 1) for number in range(40)]
    assert pieces > 1


def test_what_is_compacted_is_gone(
    node: RestNode, client: Connection, loop_thread: LoopThread, watch: Watch
) -> None:
    watch()
    for key in ("a", "b", "c"):
        put(client, key)
    compact(node, loop_thread, 2)
    for query, headers in (("?prefix=&from=2", []), ("?prefix=", [("Last-Event-ID", "2.1")])):
        reply = client.request("GET", f"/v1/watch{query}", headers)
        assert (reply.status, reply.json["code"], reply.json["oldest"]) == (410, "compacted", 3)
    stream = watch("?prefix=&from=3")
    stream.event()
    assert stream.event()["key"] == "c"


def test_compacted_under_way(
    node: RestNode, client: Connection, loop_thread: LoopThread, watch: Watch
) -> None:
    """Who comes too late for what is next is told, and sent away; who needs nothing goes on."""
    late, idle = watch("?key=a"), watch("?key=b")
    late.event(), idle.event()

    async def forget() -> None:
        node.store.put(b"a", b"v", None)
        node.service.hub.look()
        history = node.store.history
        assert isinstance(history, History)
        history.compact(1)

    loop_thread.run(forget())
    last = late.event()
    assert (last["event"], last["id"], last["oldest"]) == ("compacted", None, 2)
    assert late.chunk() == b""
    assert late.is_closed()
    put(client, "b")
    assert idle.event()["id"] == "2"


def test_a_beat_says_how_far_it_is(
    node: RestNode, client: Connection, loop_thread: LoopThread, watch: Watch
) -> None:
    stream = watch("?key=a")
    stream.event()
    put(client, "b")
    node.wait(lambda: node.service.hub.revision == 1)

    async def beat() -> None:
        node.service.hub.beat()

    loop_thread.run(beat())
    assert stream.event() == {"event": "progress", "id": "1", "revision": 1}


def test_without_a_leader_it_ends(node: RestNode, loop_thread: LoopThread, watch: Watch) -> None:
    """A node that is cut off has nothing to tell; who takes what is stale stays."""
    stream, stale = watch("?key=a"), watch("?key=a&consistency=stale")
    stream.event(), stale.event()
    node.service.staleness = 10_001.0

    async def beat() -> None:
        node.service.hub.beat()

    loop_thread.run(beat())
    assert stream.event() == {
        "event": "progress",
        "id": "0",
        "revision": 0,
        "end": "this node hears of no leader",
    }
    assert stream.chunk() == b""
    assert stale.event() == {"event": "progress", "id": "0", "revision": 0}


def test_a_node_that_stops_says_where_to_go_on(node: RestNode, client: Connection, watch: Watch) -> None:
    stream = watch("?key=a")
    stream.event()
    put(client, "b")
    client.close()
    drained = node.drain(60.0)
    last = stream.event()
    assert (last["event"], last["id"], last["end"]) == ("progress", "1", "this node is stopping")
    assert stream.chunk() == b""
    assert stream.is_closed()
    drained.result(DEADLINE_S)
    again = watch("?key=a")
    assert again.status == 503


def test_who_is_gone_is_forgotten(node: RestNode, watch: Watch) -> None:
    stream = watch("?key=a")
    stream.event()
    assert len(node.service.hub) == 1
    stream.close()
    node.wait(lambda: not len(node.service.hub))


def test_only_so_many(loop_thread: LoopThread) -> None:
    node = RestNode(loop_thread, replace(LIMITS, max_watchers=1))
    with Connection(node) as client:
        client.request("GET", "/v1/kv/none?wait=1ms")
        stream = Stream(node, "?key=a")
        stream.event()
        for path in ("/v1/watch?key=a", "/v1/kv/a?wait=1s"):
            reply = client.request("GET", path)
            assert (reply.status, reply.json["code"]) == (429, "too_many_requests")
        stream.close()
        node.wait(lambda: not len(node.service.hub))
        assert client.request("GET", "/v1/kv/a?wait=1ms").status == 304
    node.close()


def test_who_takes_nothing_is_cut_off(loop_thread: LoopThread) -> None:
    """And all that waits for it meanwhile is one piece."""
    node = RestNode(loop_thread, replace(LIMITS, max_watch_stall_ms=200.0))
    with Connection(node) as client:
        client.request("GET", "/v1/kv/none?wait=1ms")
        stream = Stream(node, "?prefix=")
        stream.event()
        value = "x" * 4096
        for number in range(100_000):
            put(client, f"k{number % 10}", value)
            if not len(node.service.hub):
                break
        assert not len(node.service.hub), "it was not cut off"
        stream.close()
    node.close()


def test_a_mistake_cuts_it_off(
    node: RestNode,
    loop_thread: LoopThread,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    log_lines: list[MutableMapping[str, Any]],
) -> None:
    """Where nothing more can be said: never an end that looks like a good one."""
    stream = watch("?key=a")
    stream.event()
    monkeypatch.setattr("raftkv.api.watch.envelope", None)
    transact(node, loop_thread, "a")
    with pytest.raises((ConnectionResetError, ValueError)):
        stream.chunk()
    node.wait(lambda: not len(node.service.hub))
    assert "a stream failed" in [line["event"] for line in log_lines]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?key=a&prefix=a",
        "?key=a&start=a",
        "?prefix=a&end=b",
        "?key=",
        "?key=%00a",
        "?prefix=%00",
        "?key=" + "k" * 65,
        "?key=a&from=0",
        "?key=a&from=x",
        "?key=a&prev=yes",
        "?key=a&wait=1s",
    ],
)
def test_a_wrong_query(client: Connection, query: str) -> None:
    reply = client.request("GET", f"/v1/watch{query}")
    assert (reply.status, reply.json["code"]) == (400, "bad_request")


@pytest.mark.parametrize("event_id", ["x", "-1", "1.", "1.0", "1.2.3", "0.1", ".1", "1" * 19])
def test_a_wrong_last_event_id(client: Connection, event_id: str) -> None:
    reply = client.request("GET", "/v1/watch?key=a", [("Last-Event-ID", event_id)])
    assert (reply.status, reply.json["code"]) == (400, "bad_request")


def test_the_stores_own_keys_are_not_shown(node: RestNode, loop_thread: LoopThread, watch: Watch) -> None:
    streams = [watch("?prefix="), watch("?start="), watch("?end=b")]
    for stream in streams:
        stream.event()
    transact(node, loop_thread, "\0lock", "a")
    for stream in streams:
        assert names(stream.events()) == [("put", "1", "a")]
