"""What the nemesis did when, in a file beside the nodes' logs and with times written like theirs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


class Diary:
    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, text: str) -> None:
        """Append a line, at once: whatever happens next, it is there."""
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{now} {text}\n")
