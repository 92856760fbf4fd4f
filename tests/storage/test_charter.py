"""The charter: written whole or not at all, read as it was written, and damage found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest

from raftkv.consensus.types import NodeId
from raftkv.errors import StartError
from raftkv.storage.charter import CHARTER_NAME, Charter, new_charter, read_charter, write_charter
from raftkv.storage.files import OsFiles
from raftkv.storage.segment import Owner

N1, N2 = NodeId("n1"), NodeId("n2")
CHARTER = Charter(Owner("0123456789abcdef", N1), "00ff" * 4, {N1: "a:1", N2: "b:2"}, {})


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = OsFiles()
    assert read_charter(files, tmp_path) is None
    write_charter(files, tmp_path, CHARTER)
    assert read_charter(files, tmp_path) == CHARTER
    joined = replace(CHARTER, founders={}, contacts={N2: "b:2"})
    write_charter(files, tmp_path, joined)
    assert read_charter(files, tmp_path) == joined
    assert files.names(tmp_path) == [CHARTER_NAME]


def test_each_directory_has_an_id_of_its_own() -> None:
    ids = {new_charter(OsFiles(), CHARTER.owner, founders={}, contacts={}).directory for _ in range(20)}
    assert len(ids) == 20


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / CHARTER_NAME
    write_charter(files, tmp_path, CHARTER)
    sound = path.read_bytes()
    complaints: list[StartError] = []
    for position in range(len(sound)):
        for value in (sound[position] ^ 1, 0xFF):
            path.write_bytes(sound[:position] + bytes([value]) + sound[position + 1 :])
            try:
                found = read_charter(files, tmp_path)
            except StartError as error:
                complaints.append(error)
            else:
                assert found == CHARTER  # a blank between the fields
        path.write_bytes(sound[:position])
        if position < len(sound) - 1:  # the last is a line's end
            with pytest.raises(StartError):
                read_charter(files, tmp_path)
    assert len(complaints) > len(sound)
    assert all(error.exit_code == 65 and str(path) in str(error) for error in complaints)


def test_one_of_a_newer_release(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / CHARTER_NAME
    write_charter(files, tmp_path, CHARTER)
    document = json.loads(path.read_bytes())
    document["charter"]["version"] = 2
    plain = json.dumps(document["charter"], sort_keys=True, separators=(",", ":")).encode()
    document["crc32c"] = google_crc32c.value(plain)
    path.write_text(json.dumps(document))
    with pytest.raises(StartError, match="version 2"):
        read_charter(files, tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="can't be written") as caught:
        write_charter(OsFiles(), tmp_path / "missing", CHARTER)
    assert caught.value.exit_code == 73
