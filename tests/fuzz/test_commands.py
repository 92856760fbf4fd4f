"""What entries may hold: two machines make the same of any of them, and ``raftkv wal`` shows any log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from raftkv.cli import main
from raftkv.consensus.types import Entry, EntryKind, GroupId, HardState, Index, NodeId, Term, Write
from raftkv.kv.machine import KvMachine
from raftkv.storage.files import OsFiles
from raftkv.storage.wal import Wal
from tests.fuzz.budget import budget
from tests.fuzz.mutations import mutated
from tests.kv.dump import seen
from tests.kv.test_machine import COMMANDS, SCALARS, VALUES

NUMBERS = st.integers(1, 4) | st.sampled_from([-(2**63), -1, 0, 2**63, 2**64 - 1])
NODES = st.sampled_from(["n1", "n2", "", "ü\n\x1b[31m"])
batches = st.builds(
    lambda node, incarnation, seq, low, commands: msgpack.packb([1, node, incarnation, seq, low, commands]),
    NODES,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.lists(COMMANDS, max_size=3),
)
datas = batches | mutated(batches) | VALUES.map(msgpack.packb) | st.binary(max_size=20)

DEEP = b"\x91" * 900 + b"\xc0"
ONE_COMMAND = b"\x96\x01\xa2n1\x01\x02\x01\x91"
ODD_CONDITIONS = [[2, [b"x"]], [2, "text"], [2, {"a": 1}], [4, [msgpack.ExtType(1, b"")]], {1: [], 2: []}]


@given(st.lists(datas, max_size=8))
@budget(60)
def test_two_machines_stay_equal(entries: list[bytes]) -> None:
    one, other = KvMachine(), KvMachine()
    for time_ms, data in enumerate(entries):
        before = seen(one)
        applied = one.apply(time_ms, data)
        assert applied == other.apply(0, data)
        if applied is None or applied.results is None:
            assert seen(one) == before
    assert seen(one) == seen(other)


@given(SCALARS)
@budget(50)
def test_names_of_batches(name: Any) -> None:
    """Whatever stands where a batch's name does, the machine is as it was, or has one row more."""
    machine = KvMachine()
    machine.apply(0, msgpack.packb([1, name, 1, 1, 1, []]))
    assert len(machine.sessions._rows) == int(isinstance(name, str))


# -- raftkv wal --------------------------------------------------------------------------------------------

_number = count()


def a_log(tmp_path: Path, datas: Sequence[bytes]) -> Path:
    """A node's directory whose entries hold ``datas``."""
    path = tmp_path / f"log{next(_number)}"
    path.mkdir()
    wal, _ = Wal.open(OsFiles(), path, "0123456789abcdef", NodeId("n1"))
    entries = tuple(
        Entry(Index(index), Term(1), EntryKind.BATCH, 0, data) for index, data in enumerate(datas, 1)
    )
    wal.commit([Write(GroupId(0), HardState(Term(1), NodeId("n1")), entries)])
    wal.close()
    return path


def run(*arguments: object) -> Result:
    """``raftkv wal``, which ends in an exit code, never in a traceback."""
    result = CliRunner().invoke(main, ["wal", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@given(st.lists(datas, min_size=1, max_size=6))
@example([msgpack.packb([1, "n1", 1, 2, 1, [[2, b"k", odd]]]) for odd in ODD_CONDITIONS])
@example([ONE_COMMAND + DEEP, ONE_COMMAND + b"\x93\x02\xc4\x01k" + DEEP])
@budget(15)
def test_a_log_of_any_entries_is_shown(tmp_path: Path, datas: list[bytes]) -> None:
    directory = a_log(tmp_path, datas)
    people = run("dump", directory)
    assert people.exit_code == 0, people.output
    assert sum("ENTRY" in line for line in people.stdout.splitlines()) == len(datas)
    assert "\x1b" not in people.stdout
    machines = run("dump", directory, "--output", "json")
    assert machines.exit_code == 0, machines.output
    shown = [json.loads(line) for line in machines.stdout.splitlines()]
    assert [line["data_bytes"] for line in shown if line["type"] == "ENTRY"] == [len(data) for data in datas]
    assert run("verify", directory).exit_code == 0


@given(st.data())
@budget(20)
def test_a_log_of_any_bytes_is_judged(tmp_path: Path, data: st.DataObject) -> None:
    directory = a_log(tmp_path, [b"one", b"two"])
    (segment,) = directory.glob("*.log")
    segment.write_bytes(data.draw(mutated(st.just(segment.read_bytes()))))
    for arguments in (["dump", directory], ["verify", directory], ["verify", directory, "--output", "json"]):
        result = run(*arguments)
        assert result.exit_code in (0, 1)
        assert result.exit_code == 0 or len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n" * 100, b"12\n34\n", bytes(1 << 20)], ids=len)
def test_any_lock_file(tmp_path: Path, content: bytes) -> None:
    """It is taken over; while it is held, the refusal quotes what of it is a process id."""
    files = OsFiles()
    (tmp_path / "LOCK").write_bytes(content)
    lock = files.lock(tmp_path / "LOCK")
    assert (tmp_path / "LOCK").read_bytes().strip().isdigit()
    lock.release()
