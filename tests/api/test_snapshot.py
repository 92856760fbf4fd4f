"""``GET /v1/snapshot``: whole, of one moment, and never at the others' cost."""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import NoQuorum, TooManyRequests
from raftkv.kv.machine import KvMachine
from raftkv.kv.store import MAX_IMAGES
from raftkv.server.backup import MachineBackup
from raftkv.storage.backup import BackupSummary, BadBackup, check_backup
from tests.api.client import Connection
from tests.api.node import BACKED_UP, DEADLINE_S, LIMITS, OWNER, LoopThread, RestNode
from tests.kv.dump import seen

LARGE = 8_000  # keys that sockets and buffers don't hold
Lines = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a backup takes is not what is looked at here."""
    monkeypatch.setattr("raftkv.server.backup._SHARE", 1.0)


@contextmanager
def asked(node: RestNode, query: str = "") -> Iterator[http.client.HTTPResponse]:
    """An answer of which only the head was read."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=DEADLINE_S)
    connection.sock = socket.socket()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sock.settimeout(DEADLINE_S)
    connection.sock.connect(("127.0.0.1", node.port))
    try:
        connection.request("GET", f"/v1/snapshot{query}")
        answer = connection.getresponse()
        yield answer
        answer.close()
    finally:
        connection.close()


def fill(node: RestNode, keys: int) -> None:
    for number in range(keys):
        node.store.put(b"k%06d" % number, bytes(1000), None)


def read_back(content: bytes) -> tuple[BackupSummary, KvMachine]:
    restore = KvMachine().restorer()
    summary = check_backup(Path("backup"), io.BytesIO(content), restore.feed)
    return summary, restore.finish()


def cut_off(answer: http.client.HTTPResponse) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()


def reasons(lines: Lines) -> list[str]:
    return [line["reason"] for line in lines if line["event"] == "a backup was cut off"]


def test_it_is_the_machine(node: RestNode) -> None:
    fill(node, 3_000)
    with asked(node) as answer:
        content = answer.read()
    assert answer.status == 200
    assert answer.headers["Raftkv-Revision"] == answer.headers["Raftkv-Keys"] == "3000"
    assert answer.headers["Raftkv-Consistency"] == "linearizable"
    assert answer.headers["Raftkv-Node"] == "n1"
    assert answer.headers["Cache-Control"] == "no-store"
    name = 'attachment; filename="raftkv-0123456789abcdef-3000.snap"'
    assert answer.headers["Content-Disposition"] == name
    summary, machine = read_back(content)
    assert (summary.source, summary.meta) == (OWNER, BACKED_UP)
    assert seen(machine) == seen(node.service.machine)


def test_an_empty_machine_has_a_backup_too(node: RestNode) -> None:
    with asked(node) as answer:
        assert seen(read_back(answer.read())[1]) == seen(KvMachine())


def test_it_is_of_one_moment_whatever_is_written_meanwhile(node: RestNode, client: Connection) -> None:
    fill(node, LARGE)
    before = seen(node.service.machine)
    with asked(node) as answer:
        for number in range(0, LARGE, 500):
            assert client.request("PUT", f"/v1/kv/k{number:06d}", body=b"changed").status == 200
        assert client.request("DELETE", f"/v1/kv/k{LARGE - 1:06d}").status == 200
        content = answer.read()
    assert seen(read_back(content)[1]) == before
    assert seen(node.service.machine) != before


def test_less_than_all_of_it_is_no_backup(node: RestNode) -> None:
    fill(node, 200)
    with asked(node) as answer:
        content = answer.read()
    for cut in (len(content) - 1, len(content) - 28, len(content) // 2):
        with pytest.raises(BadBackup, match="the file ends"):
            read_back(content[:cut])


def test_consistency_is_as_for_reads(node: RestNode, client: Connection) -> None:
    node.service.barrier_error = NoQuorum("nobody leads")
    refused = client.request("GET", "/v1/snapshot")
    assert (refused.status, refused.json["code"]) == (503, "no_quorum")
    with asked(node, "?consistency=stale") as answer:
        assert (answer.status, answer.headers["Raftkv-Staleness-Ms"]) == (200, "12")
        assert answer.headers["Raftkv-Consistency"] == "stale"
        read_back(answer.read())
    node.service.staleness = None
    assert client.request("GET", "/v1/snapshot?consistency=stale").status == 503
    node.service.barrier_error = None
    node.service.backup_error = TooManyRequests("too many images")
    assert client.request("GET", "/v1/snapshot").status == 429


def test_what_is_no_such_request_is_refused(client: Connection) -> None:
    assert client.request("GET", "/v1/snapshot?consistency=linear").status == 400
    assert client.request("GET", "/v1/snapshot?prefix=a").status == 400
    assert client.request("DELETE", "/v1/snapshot").status == 405


def test_it_begins_after_the_barrier(node: RestNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged elsewhere before the request is in it, though it comes here with the barrier."""

    async def barrier(timeout_ms: float) -> None:
        node.store.put(b"late", b"", None)

    monkeypatch.setattr(node.service, "barrier", barrier)
    with asked(node) as answer:
        assert read_back(answer.read())[1].store.get(b"late") is not None


def test_head_has_no_body_and_holds_nothing(node: RestNode, client: Connection) -> None:
    fill(node, 10)
    for _ in range(MAX_IMAGES + 1):
        reply = client.request("HEAD", "/v1/snapshot")
        assert (reply.status, reply.headers["raftkv-keys"]) == (200, "10")


def test_few_at_a_time(node: RestNode, client: Connection) -> None:
    fill(node, LARGE)
    with asked(node) as first, asked(node) as second:
        refused = client.request("GET", "/v1/snapshot")
        assert (refused.status, refused.json["code"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        read_back(second.read())
        with asked(node) as third:
            assert third.status == 200
            read_back(third.read())
        read_back(first.read())


def test_who_goes_away_leaves_nothing_behind(node: RestNode, log_lines: Lines) -> None:
    fill(node, LARGE)
    for _ in range(MAX_IMAGES + 1):
        with asked(node) as answer:
            assert answer.status == 200
            assert answer.read(1000)
        node.wait_for_no_connections()
    assert not node.store._images
    assert [line for line in log_lines if line["log_level"] != "debug"] == []


@pytest.fixture
def limited(loop_thread: LoopThread) -> Iterator[Callable[..., RestNode]]:
    """Makes a node with other limits."""
    nodes: list[RestNode] = []

    def make(**limits: Any) -> RestNode:
        nodes.append(RestNode(loop_thread, replace(LIMITS, **limits)))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def test_a_reader_that_takes_nothing_is_cut_off(limited: Callable[..., RestNode], log_lines: Lines) -> None:
    node = limited(max_backup_stall_ms=50.0)
    fill(node, LARGE)
    with asked(node) as answer:
        node.wait_for_no_connections()
        assert not node.store._images
        cut_off(answer)
    assert reasons(log_lines) == ["its reader took nothing for 50 ms"]


def test_a_reader_too_slow_for_what_is_written_is_cut_off(
    limited: Callable[..., RestNode], log_lines: Lines
) -> None:
    """Old rows are kept for it up to a bound, however long it takes."""
    node = limited(max_backup_kept_bytes=100_000)
    fill(node, LARGE)
    with asked(node) as answer, Connection(node) as client:
        for number in range(LARGE - 200, LARGE):
            client.request("PUT", f"/v1/kv/k{number:06d}", body=b"changed")
        cut_off(answer)
    (reason,) = reasons(log_lines)
    assert "bytes of old rows wait for it" in reason
    assert not node.store._images


class Watched(MachineBackup):
    """Calls ``on_piece`` before each piece."""

    def __init__(self, machine: KvMachine, on_piece: Callable[[], object]) -> None:
        super().__init__(OWNER, BACKED_UP, machine.export())
        self._on_piece = on_piece

    def __next__(self) -> bytes:
        self._on_piece()
        return super().__next__()


def test_a_fault_on_the_way_is_no_end(
    node: RestNode, log_lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is gone by then: a problem document would look like a part of the backup."""
    fill(node, 3_000)
    left = [None] * 5
    monkeypatch.setattr(node.service, "backup", lambda: Watched(node.service.machine, left.pop))
    with asked(node) as answer:
        assert answer.status == 200
        cut_off(answer)
    assert [line["event"] for line in log_lines if line["log_level"] == "error"] == ["a backup failed"]
    assert not node.store._images


def test_each_piece_has_a_pass_of_the_event_loop_of_its_own(
    loop_thread: LoopThread, node: RestNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(node, 3_000)
    passes, at = 0, []
    goes_on = True

    def count() -> None:
        nonlocal passes
        passes += 1
        if goes_on:
            loop_thread.loop.call_soon(count)

    monkeypatch.setattr(
        node.service, "backup", lambda: Watched(node.service.machine, lambda: at.append(passes))
    )
    loop_thread.loop.call_soon_threadsafe(count)
    with asked(node) as answer:
        answer.read()
    goes_on = False
    assert len(at) > 40
    assert all(one < other for one, other in pairwise(at))
