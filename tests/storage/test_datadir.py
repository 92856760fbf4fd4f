"""The data directory: made, locked, and refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.errors import StartError
from raftkv.sim.files import SimLock
from raftkv.storage.datadir import DataDir
from raftkv.storage.files import OsFiles
from tests.storage.faulty_files import FaultyFiles


def refusal(path: Path, files: OsFiles | FaultyFiles | None = None) -> StartError:
    with pytest.raises(StartError) as refused:
        DataDir.open(files or OsFiles(), path)
    assert refused.value.exit_code == 73
    assert "\n" not in str(refused.value)
    return refused.value


def test_it_is_made_with_its_parents_and_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    DataDir.open(OsFiles(), path).close()
    assert path.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.iterdir()] == ["LOCK"]


def test_a_second_process_is_refused_and_told_the_first_one_s_pid(tmp_path: Path) -> None:
    first = DataDir.open(OsFiles(), tmp_path)
    program = (
        "import sys; from pathlib import Path; from raftkv.errors import StartError\n"
        "from raftkv.storage.datadir import DataDir; from raftkv.storage.files import OsFiles\n"
        "try: DataDir.open(OsFiles(), Path(sys.argv[1]))\n"
        "except StartError as error: print(error); sys.exit(error.exit_code)\n"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (second.returncode, second.stderr) == (73, "")
    assert f"in use by process {os.getpid()};" in second.stdout
    assert f"in use by process {os.getpid()};" in str(refusal(tmp_path))
    first.close()
    DataDir.open(OsFiles(), tmp_path).close()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from raftkv.storage.datadir import DataDir; from raftkv.storage.files import OsFiles\n"
        "DataDir.open(OsFiles(), Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=30)
    assert killed.returncode == -9
    DataDir.open(OsFiles(), tmp_path).close()


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    assert "Not a directory" in str(refusal(path))
    assert "Not a directory" in str(refusal(path / "below"))


class Forbidden(FaultyFiles):
    def lock(self, path: Path) -> SimLock:
        raise PermissionError(13, "Permission denied", str(path))


def test_another_user_s_directory_is_refused(tmp_path: Path) -> None:
    message = str(refusal(tmp_path, Forbidden()))
    assert f"{tmp_path / 'LOCK'}: permission denied for user {os.geteuid()}" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_a_directory_without_permissions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    assert "permission denied" in str(refusal(tmp_path / "data"))
