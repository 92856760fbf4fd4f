"""dump and verify: what a log holds, without touching it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from raftkv.consensus.types import NO_SNAPSHOT, GroupId, HardState, NodeId, Term
from raftkv.errors import StartError
from raftkv.storage.files import OsFiles
from raftkv.storage.inspect import GroupReport, dump, verify
from raftkv.storage.record import RecordType
from tests.storage.samples import CLUSTER, NODE, entry, open_wal, write


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    wal, _ = open_wal(OsFiles(), tmp_path, segment_bytes=1200)
    wal.commit([write(term=2, vote="n3")])
    wal.commit([write(entry(1, b"one"), entry(2, bytes(600)))])
    wal.commit([write(entry(1, b"uno", term=2), group=GroupId(4))])
    wal.commit([write(entry(2, b"two", term=2))])
    wal.close()
    return tmp_path


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}


def test_dump(directory: Path) -> None:
    before = contents(directory)
    lines = list(dump(directory))
    assert contents(directory) == before
    first, second = sorted(p.name for p in directory.iterdir())
    assert [(line.file, line.batch, line.type.name) for line in lines] == [
        (first, 1, "BOOT"), (first, 1, "COMMIT"),
        (first, 2, "HARD_STATE"), (first, 2, "COMMIT"),
        (first, 3, "ENTRY"), (first, 3, "ENTRY"), (first, 3, "COMMIT"),
        (second, 4, "BOOT"), (second, 4, "HARD_STATE"), (second, 4, "POSITION"), (second, 4, "COMMIT"),
        (second, 5, "ENTRY"), (second, 5, "COMMIT"),
        (second, 6, "ENTRY"), (second, 6, "COMMIT"),
    ]  # fmt: skip
    assert [line.offset for line in lines[:3]] == [512, 544, 576]
    assert lines[0].detail == {"incarnation": 1}
    assert lines[2].detail == {"term": 2, "voted_for": "n3"}
    assert lines[4].detail == {"index": 1, "term": 1, "kind": "BATCH", "time_ms": 10, "data": b"one"}
    assert lines[5].size_bytes == 672
    assert lines[6].detail == {"records": 2, "sparse_sectors": 0}
    assert lines[9].detail == {"index": 2, "term": 1, "time_ms": 20}
    assert lines[11].group == 4
    for one, following in itertools.pairwise(lines):
        assert one.file != following.file or one.offset + one.size_bytes == following.offset


def test_verify_a_sound_log(directory: Path) -> None:
    before = contents(directory)
    report = verify(directory)
    assert contents(directory) == before
    assert report.owner is not None
    assert (report.owner.cluster_id, report.owner.node_id) == (CLUSTER, NODE)
    assert (report.incarnation, report.segments, report.batches, report.records) == (1, 2, 6, 9)
    assert report.total_bytes == sum(len(data) for data, _ in before.values())
    assert report.groups == (
        GroupReport(GroupId(0), HardState(Term(2), NodeId("n3")), NO_SNAPSHOT, 2, *(1, 2, 2)),  # type: ignore[arg-type]
        GroupReport(GroupId(4), HardState(Term(0), None), NO_SNAPSHOT, 1, *(1, 1, 2)),  # type: ignore[arg-type]
    )
    assert (report.torn_tail_bytes, report.torn_tail, report.damage) == (0, None, None)


def test_verify_a_torn_tail(directory: Path) -> None:
    last = max(directory.iterdir())
    last.write_bytes(last.read_bytes()[:-1])
    report = verify(directory)
    assert (report.damage, report.batches) == (None, 5)
    assert report.torn_tail_bytes == 95
    assert report.torn_tail is not None
    assert report.torn_tail.startswith(f"{last}: byte ")
    assert len(list(dump(directory))) == 13


def test_verify_reports_the_first_damage_in_the_words_of_a_refused_start(directory: Path) -> None:
    first = min(directory.iterdir())
    data = bytearray(first.read_bytes())
    data[600] ^= 1
    first.write_bytes(data)
    with pytest.raises(StartError) as refused:
        open_wal(OsFiles(), directory)
    report = verify(directory)
    assert report.damage == str(refused.value)
    assert (report.segments, report.batches, report.total_bytes) == (1, 1, 576)
    lines = dump(directory)
    assert [next(lines).type, next(lines).type] == [RecordType.BOOT, RecordType.COMMIT]
    with pytest.raises(StartError, match="damaged at byte 576"):
        next(lines)


def test_a_directory_that_holds_no_log(tmp_path: Path) -> None:
    report = verify(tmp_path)
    assert (report.owner, report.segments, report.damage) == (None, 0, None)
    assert list(dump(tmp_path)) == []
    missing = verify(tmp_path / "missing")
    assert missing.damage is not None
    assert "No such file or directory" in missing.damage
    with pytest.raises(StartError):
        list(dump(tmp_path / "missing"))
