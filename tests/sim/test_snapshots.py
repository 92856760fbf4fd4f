"""What the simulator itself knows of snapshots: it must see when one is wrong, and when a start may fail."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from raftkv.consensus.invariants import InvariantBroken
from raftkv.consensus.types import (
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    NodeId,
    SnapshotMeta,
    Term,
    Write,
)
from raftkv.kv.commands import encode_delete, encode_put
from raftkv.kv.machine import KvMachine
from raftkv.kv.session import BatchId
from raftkv.sim.disk import Durable
from raftkv.sim.files import SimFiles, Tear
from raftkv.sim.network import Network
from raftkv.sim.plan import NetworkPlan
from raftkv.sim.reference import Reference
from raftkv.sim.world import World
from raftkv.storage.segment import Owner
from raftkv.storage.snapshot import DamagedSnapshotError, snapshot_name
from raftkv.storage.snapshots import SnapshotFiles

DIRECTORY = Path("/data")
N1, N2 = NodeId("n1"), NodeId("n2")


def meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(Index(index), Term(term), 0)


def entries(*terms: int) -> list[Entry]:
    """From index 1."""
    return [Entry(Index(at), Term(term), EntryKind.NOOP, 0, b"") for at, term in enumerate(terms, start=1)]


# -- the reference -----------------------------------------------------------------------------------------

BATCHES = (
    (BatchId("n1", 1, 1, 1), [encode_put(b"a", b"1"), encode_put(b"b", b"2")]),
    (BatchId("n2", 1, 1, 1), [encode_put(b"a", b"3"), encode_delete(b"b")]),
    (BatchId("n1", 1, 1, 1), [encode_put(b"a", b"1"), encode_put(b"b", b"2")]),  # again
    (BatchId("n1", 1, 2, 2), [encode_put(b"b", b"4")]),
    (BatchId("n2", 3, 1, 1), [encode_delete(b"c")]),
)


def played(batches: int) -> tuple[Reference, KvMachine]:
    """A reference that knows all of ``BATCHES``, and a machine that has applied the first of them."""
    reference, whole, machine = Reference(), KvMachine(), KvMachine()
    for position, (name, commands) in enumerate(BATCHES):
        data = whole.seal(name, commands)
        reference.applied(position, 0, data, whole.apply(0, data))
        if position < batches:
            machine.apply(0, data)
    return reference, machine


@pytest.mark.parametrize("batches", range(len(BATCHES) + 1))
def test_an_image_is_what_the_log_leads_to(batches: int) -> None:
    reference, machine = played(batches)
    reference.check_machine("n1", batches, machine)
    reference.check_image("n1", batches, machine.export())


@pytest.mark.parametrize("batches", range(len(BATCHES)))
def test_an_image_of_another_position_is_seen(batches: int) -> None:
    """... but for one that differs by a batch that was dropped."""
    reference, machine = played(batches)
    if batches != 2:
        with pytest.raises(InvariantBroken, match="another machine"):
            reference.check_image("n1", batches + 1, machine.export())


@pytest.mark.parametrize("name", [BatchId("n1", 1, 3, 2), BatchId("n1", 1, 2, 1), BatchId("n1", 2, 2, 2)])
def test_a_session_that_differs_is_seen(name: BatchId) -> None:
    reference, machine = played(3)
    machine.apply(0, machine.seal(name, BATCHES[3][1]))
    with pytest.raises(InvariantBroken, match="another machine"):
        reference.check_image("n1", 4, machine.export())


@pytest.mark.parametrize("value", [b"5", b""])
def test_a_value_that_differs_is_seen(value: bytes) -> None:
    reference, machine = played(3)
    machine.apply(0, machine.seal(BATCHES[3][0], [encode_put(b"b", value)]))
    with pytest.raises(InvariantBroken, match="another machine"):
        reference.check_image("n1", 4, machine.export())


# -- what a disk holds -------------------------------------------------------------------------------------


def test_an_installed_snapshot_replaces_a_log_that_does_not_hold_its_end() -> None:
    durable = Durable(entries(1, 1, 2, 2, 2), entries=entries(1, 1, 1))
    durable.confirm([Write(GroupId(0), None, (), meta(4, 2))])
    assert durable.entries == entries(1, 1, 2, 2)
    durable.confirm([Write(GroupId(0), None, (), meta(3, 2))])
    assert durable.entries == entries(1, 1, 2, 2), "what follows that entry stays"


def test_a_log_must_not_rest_on_a_snapshot_that_is_not_durable() -> None:
    durable = Durable(entries(1, 1, 1))
    write = Write(GroupId(0), None, (), meta(2))
    assert not durable.is_backed(write)
    durable.add_snapshot(meta(2))
    assert durable.is_backed(write)


def test_of_the_newest_two_snapshots_none_may_go() -> None:
    durable = Durable(entries(*[1] * 9))
    for index in (4, 8, 6):
        durable.add_snapshot(meta(index))
    names = [snapshot_name(meta(index)) for index in (4, 6, 8)]
    durable.kept(set(names[1:]))
    with pytest.raises(InvariantBroken, match="of the newest two"):
        durable.kept(set(names[2:]))


def test_a_start_from_a_snapshot_that_the_log_does_not_reach() -> None:
    durable = Durable(entries(1, 2, 2), HardState(Term(1), N1), entries(1))
    assert durable.joined(None) == (HardState(Term(1), N1), entries(1))
    assert durable.joined(meta(1)) == (HardState(Term(1), N1), entries(1))
    assert durable.joined(meta(3, 2)) == (HardState(Term(2), None), entries(1, 2, 2))


def test_a_start_uses_the_newest_sound_snapshot() -> None:
    durable = Durable(entries(*[1] * 9))
    for index in (4, 8):
        durable.add_snapshot(meta(index))
    names = [snapshot_name(meta(index)) for index in (4, 8)]
    with pytest.raises(InvariantBroken, match="at 8 was durable"):
        durable.found(names, [], meta(4))
    durable.found(names, names[1:], meta(4))


@pytest.mark.parametrize(
    ("floor", "dropped", "sound", "damaged", "must"),
    [
        (0, 0, [], [], True),
        (0, 0, [], [8], True),  # the log is whole
        (0, 4, [4], [8], True),
        (0, 4, [8], [4], True),
        (0, 4, [], [8], False),
        (8, 0, [4], [8], False),  # the older one doesn't join the log
        (4, 0, [4], [8], True),
    ],
)
def test_when_a_start_must_succeed(
    floor: int, dropped: int, sound: list[int], damaged: list[int], must: bool
) -> None:
    durable = Durable(entries(*[1] * 9), floor=Index(floor), dropped=Index(dropped))
    names = [snapshot_name(meta(index)) for index in sorted(sound + damaged)]
    bad = [snapshot_name(meta(index)) for index in damaged]
    assert durable.can_start(names, bad) is must
    assert not durable.can_start(names, [*bad, "wal-1.log"])


def test_a_start_that_was_interrupted_may_have_given_up_the_older_one() -> None:
    durable = Durable(entries(*[1] * 9), dropped=Index(4))
    names = [snapshot_name(meta(index)) for index in (4, 8)]
    assert durable.can_start(names, names[1:])
    durable.start_interrupted(names, [])
    assert not durable.can_start(names, names[1:])


# -- its files ---------------------------------------------------------------------------------------------


def with_a_flipped_bit(seed: int) -> tuple[SimFiles, SnapshotFiles]:
    """Of a segment and two snapshots."""
    files = SimFiles(Random(seed))
    files.put(DIRECTORY / "wal-1.log", b"durable")
    snapshots = SnapshotFiles(files, DIRECTORY, Owner("5" * 16, N1))
    for index in (4, 8):
        writer = snapshots.begin(meta(index), b"")
        writer.append(b"chunk")
        writer.finish()
    files.flip_bit()
    return files, snapshots


def test_any_durable_file_is_damaged() -> None:
    hit = {tuple(with_a_flipped_bit(seed)[0].damaged_names()) for seed in range(60)}
    assert hit == {("wal-1.log",), (snapshot_name(meta(4)),), (snapshot_name(meta(8)),)}


def test_a_snapshot_is_damaged_until_it_is_set_aside() -> None:
    newest = snapshot_name(meta(8))
    tried = map(with_a_flipped_bit, range(60))
    files, snapshots = next(each for each in tried if each[0].damaged_names() == [newest])
    with pytest.raises(DamagedSnapshotError):
        snapshots.check(meta(8))
    snapshots.set_aside(DIRECTORY / newest)
    assert not files.damaged_names()
    assert not files.has_damage


def test_damage_that_was_removed_may_come_back() -> None:
    came_back = set()
    for seed in range(20):
        files = SimFiles(Random(seed))
        name = DIRECTORY / "wal-1.log"
        files.put(name, b"durable")
        files.flip_bit()
        files.unlink(name)
        assert not files.damaged_names()
        assert files.has_damage
        files.crash(Tear.LOST)
        came_back.add(bool(files.damaged_names()))
        assert files.has_damage == bool(files.damaged_names())
    assert came_back == {False, True}


# -- the way of a stream -----------------------------------------------------------------------------------


def test_a_piece_comes_unless_its_connection_has_broken() -> None:
    world = World(0)
    plan = NetworkPlan(0.5, 0.5, 0.0, 0.0, True, 1.0, 10)
    network = Network(world, plan, [N1, N2], lambda *_: None, lambda *_: None)
    came: list[str] = []
    link = N1, N2

    def carry(name: str) -> None:
        network.carry(link, 0, 1.0, lambda: came.append(name))

    carry("first")
    world.run(100)
    carry("cut on its way")
    network.cut([link])
    carry("cut before")
    world.run(200)
    network.mend([link])
    carry("of the old connection")
    network.disconnect(N1, N2, [])
    carry("of the old connection, too")
    world.run(300)
    network.carry(link, 1, 1.0, lambda: came.append("of the new connection"))
    network.clog([link], 1000)
    network.carry(link, 1, 1.0, lambda: came.append("clogged"))
    world.run(500)
    assert came == ["first", "of the new connection"]
    world.run(1100)
    assert came[-1] == "clogged"
