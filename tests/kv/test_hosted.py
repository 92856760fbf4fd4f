"""A guest: a machine of somebody else's, replicated beside the keys."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from raftkv.kv.commands import encode_batch_of, encode_level, encode_once, encode_put
from raftkv.kv.hosted import Guest, HostMachine, encode_hosted
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import Malformed, PutResult
from raftkv.kv.session import BatchId


class Words:
    """Remembers words; refuses one that it has."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.times_ms: list[int] = []

    def apply(self, time_ms: int, command: bytes) -> int:
        word = command.decode()
        if word in self.words:
            raise ValueError(f"{word!r} is there already")
        self.words.append(word)
        self.times_ms.append(time_ms)
        return len(self.words)

    def snapshot(self) -> bytes:
        return " ".join(self.words).encode()

    def restore(self, data: bytes) -> None:
        self.words = data.decode().split()


class Host:
    """A machine with a log of its own."""

    def __init__(self, guest: Guest) -> None:
        self.machine = HostMachine(guest)
        self.seq = 0

    def do(self, command: bytes, time_ms: int = 5) -> object:
        self.seq += 1
        batch = BatchId("n1", 1, self.seq, self.seq)
        applied = self.machine.apply(time_ms, self.machine.seal(batch, [command]))
        assert applied is not None
        assert applied.results is not None
        return applied.results[0]


def copy(source: HostMachine, guest: Guest) -> HostMachine:
    other = HostMachine(guest)
    restoring = other.restorer()
    for chunk in source.export():
        restoring.feed(chunk)
    assert restoring.finish() is other
    return other


def test_commands_of_both_kinds_are_applied_in_one_order() -> None:
    words = Words()
    host = Host(words)
    assert host.do(encode_hosted(b"one"), time_ms=7) == 1
    assert host.do(encode_put(b"k", b"v")) == PutResult(1, 1)
    assert host.do(encode_hosted(b"two"), time_ms=3) == 2
    assert words.words == ["one", "two"]
    assert words.times_ms == [7, 7]  # time never goes back


def test_a_refusal_is_the_answer_and_changes_nothing() -> None:
    words = Words()
    host = Host(words)
    host.do(encode_hosted(b"one"))
    assert host.do(encode_hosted(b"one")) == Malformed("'one' is there already")
    assert words.words == ["one"]


def test_under_an_idempotency_key_a_command_is_applied_once() -> None:
    words = Words()
    host = Host(words)
    host.do(encode_level(2))
    once = encode_once("token", b"fingerprint", encode_hosted(b"one"))
    assert (host.do(once), host.do(once)) == (1, 1)
    refused = encode_once("another", b"fingerprint", encode_hosted(b"one"))
    assert host.do(refused) == host.do(refused) == Malformed("'one' is there already")
    batch = host.do(encode_batch_of([encode_hosted(b"two"), encode_put(b"k", b"v")]))
    assert getattr(batch, "results", None) == (2, PutResult(1, 1))


@pytest.mark.parametrize("result", [[b"one"], 1.5, 1 << 63])
def test_a_result_that_could_not_be_kept_is_a_bug(result: Any) -> None:
    class Bad(Words):
        def apply(self, time_ms: int, command: bytes) -> int:
            return result  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match="a guest's result must be"):
        Host(Bad()).do(encode_hosted(b"one"))


@pytest.mark.parametrize("count", [0, 1, 30_000])
def test_a_snapshot_holds_both_and_replaces_what_the_guest_was(count: int) -> None:
    words = Words()
    host = Host(words)
    host.do(encode_put(b"k", b"v"))
    words.words = [f"w{number}" for number in range(count)]
    other = Words()
    other.words = ["before"]
    copied = copy(host.machine, other)
    assert other.words == words.words
    assert copied.store.get(b"k") == host.machine.store.get(b"k")
    assert list(copied.export()) == list(host.machine.export())


def test_what_is_applied_while_a_snapshot_is_read_is_not_in_it() -> None:
    words = Words()
    host = Host(words)
    host.do(encode_hosted(b"one"))
    export = host.machine.export()
    host.do(encode_hosted(b"two"))
    other = Words()
    restoring = HostMachine(other).restorer()
    for chunk in export:
        restoring.feed(chunk)
    restoring.finish()
    assert other.words == ["one"]


def test_snapshots_with_and_without_a_guest_are_told_apart() -> None:
    host, plain = Host(Words()), KvMachine()
    host.do(encode_put(b"k", b"v"))
    with pytest.raises(ValueError, match="no guest"):
        HostMachine(Words()).restorer().feed(next(plain.export()))
    with pytest.raises(ValueError, match="first chunk"):
        plain.restorer().feed(next(host.machine.export()))


@pytest.mark.parametrize(
    "chunks",
    [
        [["guest", 5, 3, b"ab"], ["guest", 5, 0, b"c"]],
        [["guest", 5, 3, b"ab"], ["guest", 5, 0, b"cdef"]],
        [["guest", 5, 3, b""]],
        [["guest", 5, -1, b"a"]],
        [["guest", 5, 0]],
        [7],
    ],
)
def test_a_guest_that_is_not_whole_is_refused(chunks: list[object]) -> None:
    words = Words()
    words.words = ["before"]
    restoring = HostMachine(words).restorer()
    *before, last = map(msgpack.packb, chunks)
    for chunk in before:
        restoring.feed(chunk)
    with pytest.raises(ValueError, match="guest"):
        restoring.feed(last)
    assert words.words == ["before"]


def test_nothing_is_restored_from_half_a_snapshot() -> None:
    host, words = Host(Words()), Words()
    words.words = ["before"]
    host.do(encode_hosted(b"one"))
    chunks = list(host.machine.export())
    restoring = HostMachine(words).restorer()
    restoring.feed(chunks[0])
    with pytest.raises(ValueError, match="no chunk was fed"):
        restoring.finish()
    with pytest.raises(ValueError, match="not whole"):
        HostMachine(words).restorer().finish()
    assert words.words == ["before"]
