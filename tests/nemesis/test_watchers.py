"""The judges of watchers and of levels of reading say yes to what may be, and no to what may not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from raftkv.verify.history import Outcome
from tests.nemesis import levels, watchers, workloads
from tests.nemesis.notes import Note
from tests.nemesis.telling import moments, note, record

THERE = record(
    (1, "a", "1"),
    (2, "w/a", "1"),
    (2, "w/b", "1"),
    (2, "w/c", "1"),
    (4, "w/a", None),
    (5, "w/b", "2", 9),
    (6, "w/last", ""),
    (7, "w/last", ""),
    (8, "w/the-end", ""),
)
EMPTY = moments()


def sent(streams: Sequence[Sequence[Any]]) -> list[Note]:
    """To a watcher of ``w/``, stream by stream: (id, place in the record), or (id, revision of a progress)
    after a word.
    """
    notes = []
    for number, events in enumerate(streams, 1):
        notes.append(note("open", 0, 0, client="watcher.workloads", asked={"stream": number}))
        for event in events:
            if event[0] == "progress":
                body = {"event": "progress", "id": event[1], "revision": event[2]}
            else:
                body = put_or_delete(*event)
            asked = {"stream": number}
            notes.append(note("event", 0, 0, client="watcher.workloads", asked=asked, body=body))
    return notes


def put_or_delete(position: str, place: int) -> dict[str, Any]:
    change = THERE.changes[place]
    old = THERE.at(change.key, change.revision - 1)
    fields = asdict(change)
    if change.value is None:
        fields = {"revision": change.revision, "key": change.key}
    prev = None if old is None else {"value": old.value, "mod_revision": old.revision}
    return {**fields, "event": "delete" if change.value is None else "put", "id": position, "prev": prev}


BEGIN = ("progress", "0", 0)
TWO = [("2.1", 1), ("2.2", 2), ("2", 3)]
REST = [("4", 4), ("5", 5), ("6", 6)]


@pytest.mark.parametrize(
    "streams",
    [
        [[BEGIN, *TWO, *REST]],
        [[BEGIN, *TWO, ("progress", "3", 3), *REST]],
        [[BEGIN, *TWO[:2]], [("progress", "2.2", 1), *TWO[2:], *REST]],
        [[BEGIN, *TWO], [("progress", "2", 2)], [], [("progress", "2", 2), *REST]],
        [[], [BEGIN], [BEGIN, *TWO, ("progress", "3", 3)], [("progress", "3", 3), *REST]],
    ],
    ids=["at once", "progress", "within a revision", "again", "nothing at first"],
)
def test_a_watch_may_go_so(streams: Sequence[Sequence[Any]]) -> None:
    assert watchers.judge(sent(streams), THERE, EMPTY) == []


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ([[BEGIN, *TWO[:1], *TWO[2:], *REST]], "comes next"),  # lost
        ([[BEGIN, *TWO, *TWO[2:], *REST]], "comes next"),  # doubled
        ([[BEGIN, TWO[1], TWO[0], TWO[2], *REST]], "comes next"),  # out of order
        ([[BEGIN, *TWO], [("progress", "2", 2), TWO[2], *REST]], "comes next"),  # doubled by resuming
        ([[BEGIN, *TWO], [("progress", "4", 4), *REST[1:]]], "resumed after 2"),
        ([[BEGIN, *TWO], REST], "resumed after 2"),
        ([[BEGIN, *TWO, *REST[:2]]], "the last that it was sent is 5"),
        ([[]], "the last that it was sent is 0"),
        ([[BEGIN, *TWO, ("progress", "4", 4), *REST]], "has come, it was told"),
        ([[BEGIN, *TWO, *REST[:2], ("progress", "3", 3), *REST[2:]]], "progress 3 came after 5"),
        ([[BEGIN, ("2.1", 1), ("2.2", 2), ("2.3", 3), *REST]], "has the id 2.3"),
        ([[BEGIN, ("2", 1), *TWO[1:], *REST]], "has the id 2, not 2.1"),
    ],
)
def test_a_watch_may_not_go_so(streams: Sequence[Sequence[Any]], words: str) -> None:
    (complaint,) = watchers.judge(sent(streams), THERE, EMPTY)
    assert words in complaint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": "3"}, "comes next"),
        ({"version": 1}, "comes next"),
        ({"lease": 0}, "comes next"),
        ({"prev": None}, "there was not"),
        ({"event": "compacted"}, "was told"),
    ],
)
def test_an_event_is_looked_at(change: dict[str, Any], words: str) -> None:
    notes = sent([[BEGIN, *TWO, *REST]])
    notes[-2].body.update(change)
    (complaint,) = watchers.judge(notes, THERE, EMPTY)
    assert words in complaint


def test_who_resumes_elsewhere_is_counted() -> None:
    nodes = [("n1", None), ("n2", None), ("n2", "5"), ("n3", "5"), ("n3", "6")]
    notes = [note("open", 0, 0, asked={"stream": 1, "node": node, "after": after}) for node, after in nodes]
    assert watchers.figures(notes)["watches resumed elsewhere"] == 1


# -- levels ------------------------------------------------------------------------------------------------


def read(what: str, call: float, revision: int, connection: str = "x", **asked: Any) -> Note:
    given = {"linearizable": what == "lease", "connection": connection, **asked}
    return note(what, call, call + 0.1, asked=given, body={"revision": revision})


TOLD = [
    note("total", 0.0, 0.5, body={"revision": 5}),
    note("total", 0.6, 1.0, body={"revision": 9}),
]


@pytest.mark.parametrize(
    "notes",
    [
        [read("lease", 1.1, 9), read("lease", 0.95, 5, "y")],
        [read("bounded", 1.1, 5, bound_ms=200), read("bounded", 1.21, 9, bound_ms=200)],
        [read("stale", 1.1, 0), read("stale", 1.2, 5), read("stale", 1.3, 3, "y")],
        [read("session", 1.1, 7, least=7), read("session", 1.2, 9, linearizable=True, least=7)],
        [read("write", 1.1, 10), read("stale", 1.3, 10)],
        [Note("c", "lease", 1.1, 1.2, Outcome.FAIL, asked={"connection": "x"}, body={"revision": None})],
    ],
    ids=["lease", "bounded", "stale", "session", "own write", "none"],
)
def test_reads_may_be_so(notes: list[Note]) -> None:
    assert levels.judge(notes, record(), moments(*TOLD)) == []


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ([read("lease", 1.1, 8)], "had been told before"),
        ([read("bounded", 1.21, 8, bound_ms=200)], "told 0.2 s before"),
        ([read("session", 1.1, 6, least=7)], "the session had seen"),
        ([read("session", 1.1, 8, linearizable=True, least=7)], "had been told before"),
        ([read("stale", 1.1, 5), read("stale", 1.3, 4)], "through the same connection"),
        ([read("write", 1.1, 10), read("stale", 1.3, 9)], "through the same connection"),
    ],
)
def test_reads_may_not_be_so(notes: list[Note], words: str) -> None:
    (complaint,) = levels.judge(notes, record(), moments(*TOLD))
    assert words in complaint


def test_every_level_is_asked_for() -> None:
    """In the interface's words."""
    chance = random.Random(1)
    queries = [levels.draw_level(chance).query(7) for _ in range(200)]
    for wanted in (
        {"consistency": "lease"},
        {"max_staleness": "200ms"},
        {},
        {"min_revision": "7"},
        {"consistency": "lease", "min_revision": "7"},
    ):
        assert wanted in queries


def test_what_never_happened_shows_nothing() -> None:
    everything = Counter(dict.fromkeys(workloads.REQUIRED, 1))
    assert workloads.not_shown(everything) == []
    everything["locks granted"] = 0
    (complaint,) = workloads.not_shown(everything)
    assert "locks granted: 0" in complaint
    assert workloads.figures([]).keys() >= set(workloads.REQUIRED)
