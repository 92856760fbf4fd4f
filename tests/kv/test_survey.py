"""What is said of a snapshot's chunks without a machine, and how they become a new cluster's."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest

from raftkv.kv.commands import encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import PutResult
from raftkv.kv.row import MAX_REVISION
from raftkv.kv.session import BatchId
from raftkv.kv.snapshot import Survey, UnknownVersion, founding_chunks
from tests.kv.dump import seen
from tests.kv.test_snapshot import chunks_of, filled, restored


def sample() -> KvMachine:
    """With sessions of two nodes, one of which is in its ninth life."""
    machine = filled(3_000)
    for node, incarnation in (("n1", 9), ("n2", 1)):
        machine.apply(0, machine.seal(BatchId(node, incarnation, 1, 1), [encode_put(b"last", node.encode())]))
    return machine


def surveyed(chunks: list[bytes]) -> Survey:
    survey = Survey()
    for chunk in chunks:
        survey.feed(chunk)
    survey.finish()
    return survey


def test_it_says_what_there_is() -> None:
    machine = sample()
    survey = surveyed(chunks_of(machine))
    assert (survey.revision, survey.keys) == (machine.store.revision, 3_001)


def without_a_row(chunks: list[bytes]) -> list[bytes]:
    return [*chunks[:-1], msgpack.packb(msgpack.unpackb(chunks[-1])[:-2])]


def newer(chunks: list[bytes]) -> list[bytes]:
    return [msgpack.packb([3, *msgpack.unpackb(chunks[0])[1:]]), *chunks[1:]]


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (without_a_row, ValueError, "only 3000 of 3001 keys were fed"),
        (lambda chunks: chunks[:-1], ValueError, "keys were fed"),
        (lambda chunks: chunks[:2], ValueError, "only 1 of 2 sessions"),
        (lambda chunks: [*chunks, chunks[-1]], ValueError, "more than 3001 keys"),
        (lambda chunks: [*chunks[:3], chunks[4], chunks[3], *chunks[5:]], ValueError, "out of order"),
        (newer, UnknownVersion, "version 3"),
    ],
)
def test_it_refuses_what_no_machine_can_be_restored_from(
    spoil: Callable[[list[bytes]], list[bytes]], error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        surveyed(spoil(chunks_of(sample())))


def test_a_new_cluster_has_the_keys_and_none_of_the_sessions() -> None:
    machine = sample()
    founded = restored(founding_chunks(iter(chunks_of(machine)), 1_000))
    assert seen(founded)[1] == seen(machine)[1]
    assert founded.store.revision == machine.store.revision + 1_000
    assert len(founded.sessions) == 0
    first = BatchId("n1", 1, 1, 1)  # of the new n1's first life: the old one had nine
    applied = founded.apply(0, founded.seal(first, [encode_put(b"k", b"v")]))
    assert applied is not None
    assert applied.results == [PutResult(machine.store.revision + 1_001, 1)]


def test_nothing_else_is_changed() -> None:
    machine = filled(3_000)
    assert list(founding_chunks([b"", *chunks_of(machine)], 0)) == chunks_of(machine)


def test_a_revision_has_its_bound() -> None:
    chunks = chunks_of(filled(10))
    revision = filled(10).store.revision
    assert restored(founding_chunks(chunks, MAX_REVISION - revision)).store.revision == MAX_REVISION
    for bump in (MAX_REVISION - revision + 1, -1):
        with pytest.raises(ValueError, match="can't be raised"):
            list(founding_chunks(chunks, bump))
    with pytest.raises(ValueError, match="no machine's"):
        list(founding_chunks(newer(chunks), 0))
    with pytest.raises(ValueError, match="can't be read"):
        list(founding_chunks([], 0))
