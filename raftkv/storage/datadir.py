"""A node's data directory: made, checked and locked before anything in it is read.

Rules: one process at a time (``flock`` on ``LOCK``, which dies with the process, so there is nothing to clean
up after a crash). Whatever is wrong is a ``StartError`` (73) of one line. Whose directory it is stands in
the segments' headers, and is checked when they are read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from raftkv.errors import StartError
from raftkv.storage.files import Files, Lock, LockHeldError
from raftkv.storage.segment import EXIT_UNUSABLE

LOCK_NAME = "LOCK"


@dataclass(frozen=True, slots=True)
class DataDir:
    """A directory that this process holds the lock on."""

    path: Path
    lock: Lock

    @staticmethod
    def open(files: Files, path: Path) -> DataDir:
        """Make ``path`` if it is missing, and lock it. Raises ``StartError`` (73)."""
        try:
            files.make_directory(path)
            files.names(path)  # a directory that can be locked but not listed would look empty
            return DataDir(path, files.lock(path / LOCK_NAME))
        except LockHeldError as held:
            owner = f"process {held.owner}" if held.owner else "another process"
            raise StartError(
                f"{path}: this data directory is in use by {owner}; stop it first, or give this node its own "
                "--data-dir",
                EXIT_UNUSABLE,
            ) from None
        except PermissionError as error:
            raise StartError(
                f"{error.filename or path}: permission denied for user {os.geteuid()}; the data directory "
                f"{path} and its files must belong to the user that runs the node",
                EXIT_UNUSABLE,
            ) from error
        except OSError as error:
            raise StartError(
                f"{path}: can't be used as data directory: {error.strerror or error}", EXIT_UNUSABLE
            ) from error

    def close(self) -> None:
        """Release the lock."""
        self.lock.release()
