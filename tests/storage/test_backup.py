"""Backup files, whole and broken, and the directory of a node that founds a new cluster from one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from raftkv.consensus.membership import decode_membership
from raftkv.consensus.types import HardState, Index, NodeId, SnapshotMeta, Term
from raftkv.errors import StartError
from raftkv.kv.machine import KvMachine
from raftkv.kv.snapshot import Survey, founding_chunks
from raftkv.sim.files import PowerCut, SimFiles, Tear
from raftkv.storage.backup import BackupSummary, BadBackup, backup_chunks, check_backup, open_backup
from raftkv.storage.charter import new_charter, read_charter
from raftkv.storage.founding import (
    TOKEN_NAME,
    check_empty,
    found_from_backup,
    founding_token,
    read_token,
)
from raftkv.storage.segment import Owner
from raftkv.storage.snapshot_bytes import SnapshotEncoder
from raftkv.storage.start import open_storage
from tests.kv.dump import seen
from tests.storage.samples import CLUSTER, DIRECTORY, G0, NODE, entry, open_wal, write

OLD, NEW = Owner(CLUSTER, NodeId("n2")), Owner("fedcba9876543210", NODE)
META = SnapshotMeta(Index(4711), Term(9), 12_345)
FOUNDERS = {NODE: "host1:9001", NodeId("n2"): "host2:9001"}
FILE = Path("/backups/tuesday")
TOKEN = founding_token("ab" * 32, 0, "")


def machine(keys: int = 2_500) -> KvMachine:
    machine = KvMachine()
    for number in range(keys):
        machine.store.put(b"k%05d" % number, bytes(40), None)
    return machine


def backup_of(chunks: Iterable[bytes], meta: SnapshotMeta = META) -> bytes:
    encoder = SnapshotEncoder(OLD, meta)
    parts = [encoder.begin(b"")]
    parts += [encoder.chunk(chunk) for chunk in chunks if chunk]
    return b"".join([*parts, encoder.end()])


def files_with(content: bytes, seed: int = 1) -> SimFiles:
    files = SimFiles(Random(seed))
    files.put(FILE, content)
    return files


def checked(files: SimFiles) -> tuple[BackupSummary, Survey]:
    survey = Survey()
    summary = check_backup(FILE, open_backup(files, FILE), survey.feed)
    survey.finish()
    return summary, survey


def test_a_backup_says_what_it_is() -> None:
    content = backup_of(machine().export())
    summary, survey = checked(files_with(content))
    assert (summary.source, summary.meta, summary.size_bytes) == (OLD, META, len(content))
    assert (survey.keys, survey.revision) == (2_500, 2_500)
    other, _ = checked(files_with(backup_of(machine(2_499).export())))
    assert other.digest != summary.digest


def test_a_backup_cut_anywhere_is_refused_with_the_place() -> None:
    content = backup_of(machine(30).export())
    for cut in range(len(content)):
        with pytest.raises(BadBackup, match=rf"^{FILE}: damaged at byte \d+: the file ends ") as refused:
            checked(files_with(content[:cut]))
        assert refused.value.exit_code == 65
        assert refused.value.offset <= cut


def test_a_backup_with_any_byte_changed_is_refused() -> None:
    content = backup_of(machine(30).export())
    for at in range(len(content)):
        changed = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        with pytest.raises(BadBackup, match="damaged at byte"):
            checked(files_with(changed))


def test_chunks_that_are_no_machines_are_refused_where_they_begin() -> None:
    head, first, *_ = chunks = [chunk for chunk in machine().export() if chunk]
    content = backup_of([*chunks, b"more"])
    with pytest.raises(BadBackup, match="can't be read") as refused:
        checked(files_with(content))
    assert refused.value.offset == content.index(b"more") - 12
    with pytest.raises(BadBackup, match=r"byte 524: a chunk can't be read"):
        checked(files_with(backup_of([b"", *[b"\xc1"]])))
    with pytest.raises(ValueError, match="of 2500 keys were fed"):
        checked(files_with(backup_of([head, first])))
    with pytest.raises(BadBackup, match="it covers no entry"):
        checked(files_with(backup_of(chunks, SnapshotMeta(Index(0), Term(0), 0))))


def test_a_backup_that_changed_since_it_was_checked_is_refused() -> None:
    files = files_with(backup_of(machine().export()))
    summary, _ = checked(files)
    assert b"".join(backup_chunks(files, FILE, summary.digest)) == b"".join(machine().export())
    files.put(FILE, backup_of(machine(2_499).export()))
    with pytest.raises(BadBackup, match="the file was changed"):
        list(backup_chunks(files, FILE, summary.digest))


def found(files: SimFiles, owner: Owner = NEW) -> None:
    chunks = founding_chunks(machine().export(), 0)
    charter = new_charter(files, owner, founders=FOUNDERS, contacts={})
    found_from_backup(files, DIRECTORY, charter, TOKEN, meta=META, chunks=chunks)


def start(files: SimFiles, owner: Owner = NEW) -> KvMachine:
    """As the server does: what the machine holds then."""
    opened = open_storage(files, DIRECTORY, owner.cluster_id, owner.node_id)
    assert opened.snapshot == META
    group = opened.recovered.groups[G0]
    assert (group.boundary, group.entries) == (META, ())
    assert group.hard_state == HardState(META.term, None)
    restored = KvMachine().restorer()
    charter = read_charter(files, DIRECTORY)
    assert charter is not None
    assert (charter.owner, charter.founders) == (NEW, FOUNDERS)
    with opened.snapshots.open(META) as reader:
        members = decode_membership(reader.extra)
        assert {node: members.address(node) for node in members.voters} == FOUNDERS
        for chunk in reader:
            restored.feed(chunk)
    opened.wal.commit([write(entry(META.index + 1, term=META.term + 1), term=META.term + 1)])
    opened.wal.close()
    return restored.finish()


def test_a_node_starts_from_it() -> None:
    files = SimFiles(Random(1))
    files.make_directory(DIRECTORY)
    found(files)
    files.crash(Tear.LOST)
    assert read_token(files, DIRECTORY) == TOKEN
    assert seen(start(files)) == seen(machine())
    again = open_storage(files, DIRECTORY, NEW.cluster_id, NEW.node_id)
    assert [one.index for one in again.recovered.groups[G0].entries] == [META.index + 1]
    assert again.recovered.incarnation == 3


def test_it_never_starts_without_its_snapshot() -> None:
    for spoil in (SimFiles.unlink, lambda files, path: files.put(path, files.read(path)[:-1])):
        files = SimFiles(Random(1))
        files.make_directory(DIRECTORY)
        found(files)
        (name,) = [name for name in files.names(DIRECTORY) if name.startswith("snapshot-")]
        spoil(files, DIRECTORY / name)
        with pytest.raises(StartError, match="the log begins after entry 4711@9") as refused:
            start(files)
        assert refused.value.exit_code == 65


def test_only_as_the_node_it_was_made_for() -> None:
    files = SimFiles(Random(1))
    files.make_directory(DIRECTORY)
    found(files)
    for owner in (Owner(OLD.cluster_id, NODE), Owner(NEW.cluster_id, NodeId("n2"))):
        with pytest.raises(StartError, match="belongs to") as refused:
            start(files, owner)
        assert refused.value.exit_code == 78


@pytest.mark.parametrize("tear", list(Tear))
def test_after_a_crash_at_any_call_no_node_starts_from_a_part_of_it(tear: Tear) -> None:
    """A node starts empty only where nothing was restored; there it is one of the cluster without a token."""
    files = SimFiles(Random(1))
    files.make_directory(DIRECTORY)
    files.fuse = 1_000
    found(files)
    calls = 1_000 - files.fuse
    starts = 0
    for fuse in range(calls):
        files = SimFiles(Random(fuse))
        files.make_directory(DIRECTORY)
        files.fuse = fuse
        with pytest.raises(PowerCut):
            found(files)
        files.crash(tear)
        files.mend()
        names = files.names(DIRECTORY)
        if TOKEN_NAME not in names:
            assert read_token(files, DIRECTORY) == ""
            assert not [name for name in names if name.startswith(("wal-", "snapshot-"))]
        elif [name for name in names if name.startswith("wal-") and name.endswith(".log")]:
            starts += 1
            assert read_token(files, DIRECTORY) == TOKEN
            assert seen(start(files)) == seen(machine())
        else:
            with pytest.raises(StartError, match="did not come to its end") as refused:
                read_token(files, DIRECTORY)
            assert refused.value.exit_code == 65
    assert starts > 0


def test_a_directory_without_a_token_is_any_nodes() -> None:
    files = SimFiles(Random(1))
    files.make_directory(DIRECTORY)
    assert read_token(files, DIRECTORY) == ""
    open_wal(files)[0].close()
    assert read_token(files, DIRECTORY) == ""


@pytest.mark.parametrize("content", [b"", TOKEN[1:].encode(), b"\xff" * 64, TOKEN.upper().encode()])
def test_a_token_that_is_none_is_damage(content: bytes) -> None:
    files = SimFiles(Random(1))
    files.make_directory(DIRECTORY)
    found(files)
    files.put(DIRECTORY / TOKEN_NAME, content)
    with pytest.raises(StartError, match="no token") as refused:
        read_token(files, DIRECTORY)
    assert refused.value.exit_code == 65


def test_tokens_differ_with_all_that_makes_a_restore() -> None:
    variants = [("ab" * 32, 0, ""), ("ac" * 32, 0, ""), ("ab" * 32, 1, ""), ("ab" * 32, 0, "second")]
    assert len({founding_token(*variant) for variant in variants}) == 4
    assert founding_token(*variants[0]) == TOKEN


def test_only_an_empty_directory_is_taken() -> None:
    files = SimFiles(Random(1))
    files.make_directory(DIRECTORY)
    for name in ("LOCK", "lost+found"):
        files.put(DIRECTORY / name, b"")
    check_empty(files, DIRECTORY)
    files.put(DIRECTORY / "notes.txt", b"")
    with pytest.raises(StartError, match=r"isn't empty \(it has 'notes.txt'\)") as refused:
        check_empty(files, DIRECTORY)
    assert refused.value.exit_code == 73
