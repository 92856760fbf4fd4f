"""``raftkv wal dump`` and ``verify``: what people read, what machines read, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raftkv.cli import main
from raftkv.consensus.membership import encode_membership
from raftkv.consensus.types import (
    Entry,
    EntryKind,
    GroupId,
    HardState,
    Index,
    Membership,
    NodeId,
    SnapshotMeta,
    Term,
    Write,
)
from raftkv.kv.commands import Condition, ConditionKind, encode_delete, encode_put
from raftkv.kv.session import BatchId, encode_batch
from raftkv.storage.files import OsFiles
from raftkv.storage.start import open_storage
from raftkv.storage.wal import Wal


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["wal", *map(str, arguments)])


def entry(index: int, data: bytes, kind: EntryKind = EntryKind.BATCH) -> Entry:
    return Entry(Index(index), Term(2), kind, index * 10, data)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log of node n1: a vote, a no-op, a batch of six commands, and one that can't be read."""
    absent, revision = Condition(ConditionKind.ABSENT), Condition(ConditionKind.REVISION_IN, (7,))
    commands = [
        encode_put(b"a\nb", b"hello", None, absent),
        encode_delete(b"\xff", revision),
        *(encode_put(b"k%d" % n, b"") for n in range(4)),
    ]
    batch = encode_batch(BatchId("n2", 3, 5, 1), commands)
    path = tmp_path / "n1"
    path.mkdir()
    wal, _ = Wal.open(OsFiles(), path, "0123456789abcdef", NodeId("n1"), segment_bytes=1 << 20)
    hard_state = HardState(Term(2), NodeId("n2"))
    entries = (entry(1, b"", EntryKind.NOOP), entry(2, batch), entry(3, b"?"))
    wal.commit([Write(GroupId(0), hard_state, entries)])
    wal.close()
    return path


def test_dump_of_memberships(tmp_path: Path) -> None:
    joint = Membership((NodeId("n1"), NodeId("n4")), (NodeId("n1"),), (), ((NodeId("n4"), "h:1"),))
    wal, _ = Wal.open(OsFiles(), tmp_path, "0123456789abcdef", NodeId("n1"), segment_bytes=1 << 20)
    entries = (
        entry(1, encode_membership(joint), EntryKind.CONFIG),
        entry(2, b"membership 7", EntryKind.CONFIG),
    )
    wal.commit([Write(GroupId(0), None, entries)])
    wal.close()
    lines = [" ".join(line.split()[4:]) for line in run("dump", tmp_path).stdout.splitlines()]
    assert lines[3:5] == [
        "ENTRY index=1 term=2 kind=CONFIG time_ms=10 voters n1 n4; outgoing n1; address n4 h:1",
        "ENTRY index=2 term=2 kind=CONFIG time_ms=20 data=12B (in a form this version can't read)",
    ]
    shown = [json.loads(line) for line in run("dump", tmp_path, "--output", "json").stdout.splitlines()]
    known = [line["membership"] for line in shown if line["type"] == "ENTRY"]
    assert known == [["voters n1 n4", "outgoing n1", "address n4 h:1"], None]


def damage(directory: Path, needle: bytes) -> None:
    (segment,) = directory.glob("wal-*.log")
    raw = bytearray(segment.read_bytes())
    raw[raw.index(needle)] ^= 1
    segment.write_bytes(raw)


def test_dump_for_people(directory: Path) -> None:
    lines = [" ".join(line.split()[4:]) for line in run("dump", directory).stdout.splitlines()]
    assert lines == [
        "",
        "BOOT incarnation=1",
        "COMMIT records=1 sparse_sectors=0",
        "HARD_STATE term=2 voted_for=n2",
        "ENTRY index=1 term=2 kind=NOOP time_ms=10",
        "ENTRY index=2 term=2 kind=BATCH time_ms=20 from=n2.3.5: put a\\nb (5 B) if absent; "
        "delete \\xff if revision_in 7; put k0 (0 B); put k1 (0 B); and 2 more",
        "ENTRY index=3 term=2 kind=BATCH time_ms=30 data=1B (in a form this version can't read)",
        "COMMIT records=4 sparse_sectors=0",
    ]


def test_dump_for_machines_is_exact(directory: Path) -> None:
    records = [json.loads(line) for line in run("dump", directory, "--output", "json").stdout.splitlines()]
    assert [record["type"] for record in records].count("ENTRY") == 3
    (batch,) = [record for record in records if record.get("index") == 2]
    assert batch["from"] == "n2.3.5"
    assert len(batch["commands"]) == 6
    assert batch["commands"][:2] == [
        {"op": "put", "key": "a\nb", "value": "hello", "condition": "absent", "revisions": []},
        {"op": "delete", "key_base64": "/w==", "condition": "revision_in", "revisions": [7]},
    ]
    (unreadable,) = [record for record in records if record.get("index") == 3]
    assert (unreadable["commands"], unreadable["data_bytes"]) == (None, 1)


def test_verify_a_sound_log(directory: Path) -> None:
    result = run("verify", directory)
    assert result.exit_code == 0
    assert "node n1, cluster 0123456789abcdef, start 1\n" in result.stdout
    assert "group 0: 3 entries, 1 to 3, the last of term 2; in term 2, voted for n2\nsound\n" in result.stdout


def test_verify_for_machines(directory: Path) -> None:
    report = json.loads(run("verify", directory, "--output", "json").stdout)
    assert (report["node"], report["groups"][0]["entries"], report["damage"]) == ("n1", 3, None)


def test_damage_is_1_and_says_where(directory: Path) -> None:
    damage(directory, b"hello")
    (segment,) = directory.glob("wal-*.log")
    result = run("verify", directory)
    assert result.exit_code == 1, result.output
    assert "the node would not start" in result.stderr
    assert str(segment) in result.stderr
    assert "sound" not in result.stdout
    dumped = run("dump", directory)
    assert dumped.exit_code == 1
    assert str(segment) in dumped.stderr
    assert "BOOT" in dumped.stdout
    assert json.loads(run("verify", directory, "--output", "json").stdout)["damage"]


def test_a_torn_tail_is_no_damage(directory: Path) -> None:
    (segment,) = directory.glob("wal-*.log")
    segment.write_bytes(segment.read_bytes()[:-40])
    result = run("verify", directory)
    assert result.exit_code == 0
    assert "at the end were never acknowledged" in result.stdout
    assert result.stdout.endswith("sound\n")


@pytest.fixture
def shortened(directory: Path) -> Path:
    """... with snapshots up to 2 and, installed, 5, and a log that begins after 5."""
    opened = open_storage(OsFiles(), directory, "0123456789abcdef", NodeId("n1"), segment_bytes=4096)
    for index in (2, 5):
        writer = opened.snapshots.begin(SnapshotMeta(Index(index), Term(2), index * 10), b"")
        writer.append(b"machine")
        writer.finish()
    boundary = SnapshotMeta(Index(5), Term(2), 50)
    opened.wal.commit([Write(GroupId(0), None, (entry(6, b""),), boundary)])
    opened.wal.close()
    return directory


def test_dump_of_a_boundary(shortened: Path) -> None:
    assert "BOUNDARY   index=5 term=2 time_ms=50\n" in run("dump", shortened).stdout
    records = [json.loads(line) for line in run("dump", shortened, "--output", "json").stdout.splitlines()]
    (boundary,) = [record for record in records if record["type"] == "BOUNDARY"]
    assert (boundary["index"], boundary["term"], boundary["time_ms"]) == (5, 2, 50)


def test_verify_shows_the_snapshots_and_where_the_log_begins(shortened: Path) -> None:
    result = run("verify", shortened)
    assert result.exit_code == 0
    assert "group 0: 1 entries, 6 to 6, the last of term 2, after 5 of term 2; in term 2" in result.stdout
    assert "snapshot up to 5 of term 2: 1 chunks, 571 bytes; a start restores it\n" in result.stdout
    assert "snapshot up to 2 of term 2: 1 chunks, 571 bytes\n" in result.stdout
    report = json.loads(run("verify", shortened, "--output", "json").stdout)
    assert [(one["index"], one["used"], one["damage"]) for one in report["snapshots"]] == [
        (5, True, None), (2, False, None),
    ]  # fmt: skip
    assert report["groups"][0]["begins_after_index"] == 5


def test_verify_names_a_damaged_snapshot(shortened: Path) -> None:
    older, newest = sorted(shortened.glob("snapshot-*"))
    older.write_bytes(older.read_bytes()[:-1])
    result = run("verify", shortened)
    assert result.exit_code == 0, "it isn't needed"
    assert f"a snapshot that can't be used: {older}: damaged at byte 543: the file ends" in result.stdout
    newest.write_bytes(b"")
    result = run("verify", shortened)
    assert result.exit_code == 1
    assert f"the node would not start. {newest}: damaged at byte 0" in result.stderr
    assert "sound" not in result.stdout
    report = json.loads(run("verify", shortened, "--output", "json").stdout)
    assert report["snapshots"][0]["index"] is None


@pytest.mark.parametrize("command", ["dump", "verify"])
def test_the_directory_above_is_recognised(directory: Path, command: str) -> None:
    result = run(command, directory.parent)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"did you mean {directory}?" in result.stderr


@pytest.mark.parametrize("command", ["dump", "verify"])
def test_no_directory_is_a_usage_error(tmp_path: Path, command: str) -> None:
    assert run(command, tmp_path / "no").exit_code == 2
