"""``raftkv backup``, ``restore`` and ``snapshot verify``: a file, whole or not there, and what it makes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import msgpack
import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from raftkv.cli import main
from raftkv.config import Address, Config, parse_cluster
from raftkv.consensus.types import NodeId
from raftkv.kv.machine import KvMachine
from raftkv.server import joining, start
from raftkv.storage.files import OsFiles
from raftkv.storage.founding import read_token
from raftkv.storage.segment import Owner
from raftkv.storage.snapshot_bytes import SnapshotEncoder
from tests.api.node import BACKED_UP, OWNER, LoopThread, RestNode
from tests.cli.stub import CUT, HALF, Stub, dead_url, problem, running
from tests.kv.dump import seen

CLUSTER = "n1=127.0.0.1:9001,n2=127.0.0.1:9002,n3=127.0.0.1:9003"
KEYS = 3_000


@pytest.fixture(scope="module")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The server is in this process, and would log into the command's output."""
    with capture_logs():
        yield


@pytest.fixture
def node(loop_thread: LoopThread) -> Iterator[RestNode]:
    """A node with keys."""
    node = RestNode(loop_thread)
    for number in range(KEYS):
        node.store.put(b"k%06d" % number, bytes(100), None)
    yield node
    node.close()


def url(node: RestNode) -> str:
    return f"http://127.0.0.1:{node.port}"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def backup(path: Path, *arguments: str, endpoints: str) -> Result:
    return run("backup", path, *arguments, "--endpoints", endpoints)


def content(machine: KvMachine) -> bytes:
    """A backup of it."""
    encoder = SnapshotEncoder(OWNER, BACKED_UP)
    parts = [encoder.begin(b"")]
    parts += [encoder.chunk(chunk) for chunk in machine.export() if chunk]
    return b"".join([*parts, encoder.end()])


def sample(keys: int = KEYS) -> KvMachine:
    machine = KvMachine()
    for number in range(keys):
        machine.store.put(b"k%06d" % number, bytes(100), None)
    return machine


# -- backup ------------------------------------------------------------------------------------------------


def test_a_backup_is_a_file(node: RestNode, tmp_path: Path) -> None:
    path = tmp_path / "today.snap"
    result = backup(path, endpoints=url(node))
    size = path.stat().st_size
    said = f"{path}: 3,000 keys at revision 3000, {size:,} bytes, from {url(node)}\n"
    assert (result.exit_code, result.output) == (0, said)
    assert path.read_bytes() == content(node.service.machine)
    assert path.stat().st_mode & 0o777 == 0o600, "all values are in it"
    assert list(tmp_path.iterdir()) == [path]


def test_a_backup_for_machines(node: RestNode, tmp_path: Path) -> None:
    path = tmp_path / "today.snap"
    done = json.loads(backup(path, "--output", "json", endpoints=url(node)).output)
    verified = json.loads(run("snapshot", "verify", path, "--output", "json").output)
    for document in (done, verified):
        assert (document["keys"], document["revision"]) == (KEYS, KEYS)
        assert (document["index"], document["term"]) == (BACKED_UP.index, BACKED_UP.term)
        assert (document["cluster_id"], document["node"]) == (OWNER.cluster_id, OWNER.node_id)
        assert document["bytes"] == path.stat().st_size
    assert done["sha256"] == verified["sha256"]


def test_standard_output_gets_the_bytes_and_nothing_else(node: RestNode) -> None:
    result = run("backup", "-", "--endpoints", url(node))
    assert result.exit_code == 0
    assert result.stdout_bytes == content(node.service.machine)
    assert result.stderr.startswith("standard output: 3,000 keys")


def test_a_file_that_is_there_stays(node: RestNode, tmp_path: Path) -> None:
    path = tmp_path / "today.snap"
    path.write_bytes(b"yesterday's")
    result = backup(path, endpoints=url(node))
    assert (result.exit_code, path.read_bytes()) == (1, b"yesterday's")
    assert "--force" in result.output
    assert backup(path, "--force", endpoints=url(node)).exit_code == 0
    assert path.read_bytes() == content(node.service.machine)


def test_another_endpoint_is_asked_before_the_first_byte(node: RestNode, tmp_path: Path) -> None:
    busy = problem(429, "too_many_requests", "2 backups are under way", "not_applied")
    alone = problem(503, "no_quorum", "nobody leads", "not_applied")
    with running(Stub(fail=CUT), Stub(fail=busy), Stub(fail=alone), Stub(fail=HALF)) as stubs:
        endpoints = [dead_url(), *(stub.url for stub in stubs), url(node)]
        result = backup(tmp_path / "b", endpoints=",".join(endpoints))
        assert result.exit_code == 0, result.output
        assert [len(stub.asked) for stub in stubs] == [1, 1, 1, 1]


def test_nobody_has_one_to_give(tmp_path: Path) -> None:
    alone = problem(503, "no_quorum", "nobody leads", "not_applied")
    with running(Stub(fail=alone)) as (stub,):
        assert backup(tmp_path / "b", endpoints=stub.url).exit_code == 4
    assert backup(tmp_path / "b", endpoints=dead_url()).exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fail", [HALF, None])
@pytest.mark.parametrize("size_bytes", [512, 513, 100_000, -1])
def test_an_answer_that_ends_early_leaves_nothing(size_bytes: int, fail: str | None, tmp_path: Path) -> None:
    """... and nobody else is asked: what has begun is over."""
    path = tmp_path / "b"
    with running(Stub(fail=fail, snapshot=content(sample())[:size_bytes]), Stub()) as (one, two):
        result = backup(path, endpoints=f"{one.url},{two.url}")
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: {one.url}")
        assert ("no backup was made" if fail else f"{path}: damaged at byte ") in result.output
        assert two.asked == []
    assert list(tmp_path.iterdir()) == []


def test_who_answers_is_no_node(tmp_path: Path) -> None:
    with running(Stub(snapshot=b"<html>" * 1000)) as (stub,):
        result = backup(tmp_path / "b", endpoints=stub.url)
    assert result.exit_code == 1
    assert "sent no whole backup" in result.output


def test_a_place_that_cannot_be_written(node: RestNode, tmp_path: Path) -> None:
    result = backup(tmp_path / "missing" / "b", endpoints=url(node))
    assert (result.exit_code, result.output) == (1, f"Error: {tmp_path}/missing is no directory\n")
    (tmp_path / "b.tmp").mkdir()
    result = backup(tmp_path / "b", endpoints=url(node))
    assert (result.exit_code, result.output) == (1, f"Error: {tmp_path}/b.tmp: Is a directory\n")
    assert not (tmp_path / "b").exists()


def test_what_the_disk_has_is_looked_at(
    node: RestNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes all and keeps something else."""

    def fsync(fd: int) -> None:
        with (tmp_path / "b.tmp").open("r+b") as file:
            file.seek(1000)
            file.write(b"\xff")

    monkeypatch.setattr("raftkv.cli.backup.os.fsync", fsync)
    result = backup(tmp_path / "b", endpoints=url(node))
    assert result.exit_code == 1
    assert "can't be read back" in result.output
    assert list(tmp_path.iterdir()) == []


# -- restore -----------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "today.snap"
    path.write_bytes(content(sample()))
    return path


def restore(
    file: Path, data_dir: Path, *arguments: object, node: str = "n1", cluster: str = CLUSTER
) -> Result:
    named = ("--data-dir", data_dir, "--id", node, "--cluster", cluster)
    return run("restore", file, *named, *arguments)


def started(directory: Path, node: str = "n1", name: str = "") -> start.Start:
    """What a server would start with; the log is closed."""
    nowhere, files = Address("127.0.0.1", 1), OsFiles()
    token = read_token(files, directory)
    config = Config(
        NodeId(node),
        directory,
        nowhere,
        nowhere,
        parse_cluster(CLUSTER),
        cluster_name=name,
        cluster_token=token,
    )
    beginning = asyncio.run(joining.begin(config, files, directory))
    assert not beginning.is_new
    assert beginning.charter.owner == Owner(config.cluster_id, config.node_id)
    begin = start.read(config, files, directory, beginning.charter)
    begin.wal.close()
    return begin


def test_every_founding_member_starts_with_the_backup(file: Path, tmp_path: Path) -> None:
    clusters = set()
    for node in ("n1", "n2", "n3"):
        result = restore(file, tmp_path / node, "--output", "json", node=node)
        assert result.exit_code == 0, result.output
        clusters.add(json.loads(result.output)["cluster_id"])
        begin = started(tmp_path / node, node)
        assert begin.applied == BACKED_UP
        revision, items = seen(begin.machine)
        assert (revision, items) == (KEYS + 1_000_000_000, seen(sample())[1])
    (cluster,) = clusters
    assert cluster != OWNER.cluster_id


def test_it_says_what_it_made(file: Path, tmp_path: Path) -> None:
    result = restore(file, tmp_path / "n1", "--bump-revision", 7)
    assert result.exit_code == 0
    assert (
        "starts with 3,000 keys, and goes on after revision 3007 (the backup ends at 3000)" in result.output
    )
    assert started(tmp_path / "n1").machine.store.revision == 3_007


def test_a_cluster_is_another_by_its_file_its_options_and_its_token(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.snap"
    other.write_bytes(content(sample(KEYS - 1)))
    variants: list[tuple[Path, list[Any]]] = [
        (file, []),
        (other, []),
        (file, ["--bump-revision", 1]),
        (file, ["--cluster-name", "a"]),
        (file, ["--cluster-token", "second try"]),
    ]
    ids = set()
    for number, (source, options) in enumerate(variants):
        result = restore(source, tmp_path / f"{number}", *options, "--output", "json")
        ids.add(json.loads(result.output)["cluster_id"])
    assert len(ids) == len(variants)
    assert started(tmp_path / "3", name="a").applied == BACKED_UP


def test_a_directory_in_use_is_refused(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "n1"
    assert restore(file, directory).exit_code == 0
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    result = restore(file, directory)
    assert result.exit_code == 1
    assert f"{directory}: this directory isn't empty" in result.output
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize("command", ["restore", "verify"])
@pytest.mark.parametrize(
    ("at", "what"),
    [
        (100, "byte 0: the file's header doesn't match its checksum"),
        (520, "byte 512: a record doesn't match its checksum"),
        (-1, "a record doesn't match its checksum"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(
    at: int, what: str, command: str, file: Path, tmp_path: Path
) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    refused(file, what, command, tmp_path)


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_a_truncated_file_is_refused_with_the_place(command: str, file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:-28])
    refused(
        file,
        f"damaged at byte {file.stat().st_size}: the file ends without its end record",
        command,
        tmp_path,
    )


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_a_newer_version_is_refused(command: str, file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8] = 2
    data[508:512] = google_crc32c.value(bytes(data[:508])).to_bytes(4, "little")
    file.write_bytes(data)
    refused(file, "format version 2 was written by a newer version", command, tmp_path)
    encoder = SnapshotEncoder(OWNER, BACKED_UP)
    machine = msgpack.packb([3, 0, 0, 0])
    file.write_bytes(b"".join([encoder.begin(b""), encoder.chunk(machine), encoder.end()]))
    refused(file, "a machine of version 3", command, tmp_path)


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_a_file_without_all_keys_is_refused(command: str, file: Path, tmp_path: Path) -> None:
    encoder = SnapshotEncoder(OWNER, BACKED_UP)
    head, *_ = sample().export()
    file.write_bytes(b"".join([encoder.begin(b""), encoder.chunk(head), encoder.end()]))
    refused(file, "only 0 of 3000 keys", command, tmp_path)


def refused(file: Path, what: str, command: str, tmp_path: Path) -> None:
    directory = tmp_path / "n1"
    result = restore(file, directory) if command == "restore" else run("snapshot", "verify", file)
    assert result.exit_code == 1
    assert str(file) in result.output
    assert what in result.output
    assert not directory.exists(), "nothing was begun"


def test_a_dry_run_writes_nothing(file: Path, tmp_path: Path) -> None:
    result = restore(file, tmp_path / "n1", "--dry-run")
    assert result.exit_code == 0
    assert "would start with 3,000 keys" in result.output
    assert not (tmp_path / "n1").exists()


def test_a_node_that_is_none_of_the_founders(file: Path, tmp_path: Path) -> None:
    result = restore(file, tmp_path / "n4", node="n4")
    assert result.exit_code == 1
    assert "not --id n4" in result.output
    assert not (tmp_path / "n4").exists()


def test_a_revision_has_its_bound(file: Path, tmp_path: Path) -> None:
    result = restore(file, tmp_path / "n1", "--bump-revision", 1 << 63)
    assert result.exit_code == 1
    assert "can't be raised" in result.output
    assert not (tmp_path / "n1").exists()


def test_verify_says_what_a_file_holds(file: Path, tmp_path: Path) -> None:
    result = run("snapshot", "verify", file)
    assert (result.exit_code, result.output.splitlines()[:3]) == (
        0,
        [
            "3,000 keys at revision 3000",
            "up to entry 7 of term 2",
            "from node n1 of cluster 0123456789abcdef",
        ],
    )
    restore(file, tmp_path / "n1")
    (kept,) = (tmp_path / "n1").glob("*.snap")
    assert run("snapshot", "verify", kept).output.startswith("3,000 keys at revision 1000003000\n")
