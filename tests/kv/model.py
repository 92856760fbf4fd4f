"""A second machine, as plain as can be: every revision is a whole copy of the store."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Row = tuple[bytes, int, int, int, str | None, int]  # value, create, mod, version, content type, lease
Held = dict[bytes, Row]


@dataclass
class Model:
    revision: int = 0
    now: Held = field(default_factory=dict)
    past: list[Held] = field(default_factory=lambda: [{}])  # by revision
    leases: dict[int, tuple[int, int, bool]] = field(default_factory=dict)  # ttl, end, own
    next_lease: int = 1
    tokens: set[str] = field(default_factory=set)

    def step(self, changes: dict[bytes, Row | None]) -> None:
        """All at one revision."""
        if not changes:
            return
        self.revision += 1
        touched = {row[5] for key in changes if (row := self.now.get(key)) is not None}
        for key, row in changes.items():
            if row is None:
                self.now.pop(key, None)
            else:
                self.now[key] = row
        self.past.append(deepcopy(self.now))
        for lease in touched:
            known = self.leases.get(lease)
            if known and known[2] and not any(row[5] == lease for row in self.now.values()):
                del self.leases[lease]

    def pass_time(self, time_ms: int) -> None:
        due = sorted((end, lease) for lease, (_, end, _) in self.leases.items() if end <= time_ms)
        for _, lease in due:
            self.leases.pop(lease, None)
            self.step({key: None for key, row in self.now.items() if row[5] == lease})

    def put(self, held: Held, key: bytes, value: bytes, content_type: str | None, lease: int) -> Row:
        old, revision = held.get(key), self.revision + 1
        if old is None:
            return (value, revision, revision, 1, content_type, lease)
        return (value, old[1], revision, old[3] + (old[2] != revision), content_type, lease)

    def events(self, after: int) -> list[tuple[int, bytes, Any, Any]]:
        """By comparing each copy with the one before; in the order of keys within a revision."""
        found = []
        for revision in range(after + 1, self.revision + 1):
            before, then = self.past[revision - 1], self.past[revision]
            for key in sorted(before.keys() | then.keys()):
                if before.get(key) != then.get(key):
                    found.append((revision, key, before.get(key), then.get(key)))
        return found
