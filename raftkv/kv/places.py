"""Locks, elections and services as keys: each has a *place* that goes with a lease, and ends with it.

They lie in a part of the key space of their own, which begins with a NUL byte and which the key-value calls
don't touch: ``kind NAME 00 SUFFIX``. A name holds no NUL, so no name's places are among another's.

A lock's places are its queue, in the order in which they were made: whose ``create_revision`` is the smallest
owns it, and that revision is its fencing token. An election is such a queue, too. A service's places are its
instances.
"""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.kv.store import Store, prefix_end

LOCK, ELECTION, SERVICE = b"\x00lock/", b"\x00election/", b"\x00service/"


@dataclass(frozen=True, slots=True)
class Queue:
    """The places of one name. ``kind`` is one of those above."""

    kind: bytes
    name: bytes

    @property
    def prefix(self) -> bytes:
        return self.kind + self.name + b"\x00"

    @property
    def end(self) -> bytes:
        """The first key after its places."""
        return self.kind + self.name + b"\x01"

    def key(self, suffix: bytes) -> bytes:
        return self.prefix + suffix


@dataclass(frozen=True, slots=True)
class Place:
    key: bytes
    lease: int
    token: int  # the revision that made it
    mod_revision: int
    value: bytes


def places(store: Store, queue: Queue) -> list[Place]:
    """Those that are there, in the order in which they were made."""
    page = store.page(queue.prefix, queue.end, len(store) or 1)
    found = [
        Place(key, item.lease, item.create_revision, item.mod_revision, item.value)
        for key, item in page.items
    ]
    # NB: one revision may make several only through a transaction, which can't name reserved keys.
    found.sort(key=lambda place: (place.token, place.key))
    return found


def names(store: Store, kind: bytes) -> list[bytes]:
    """Which names of this kind have places, in byte order."""
    found: list[bytes] = []
    start, end = kind, prefix_end(kind)
    while page := store.page(start, end, 1).items:
        name = page[0][0][len(kind) :].partition(b"\x00")[0]
        found.append(name)
        start = Queue(kind, name).end
    return found
