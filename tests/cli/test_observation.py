"""What happened between two looks, told from the answers alone."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from raftkv.cli.observation import NodeView, Observer, lag, leader_of
from raftkv.cli.status_table import live_view, plain_table, summary

NODES = ("n1", "n2", "n3")


def report(
    node: str, role: str, term: int, leader: str | None, commit: int = 10, **more: Any
) -> dict[str, Any]:
    links = {other: {"connected": True} for other in NODES if other != node}
    indexes = {"commit_index": commit, "last_applied": commit, "last_index": commit, "revision": commit - 1}
    return {"node": node, "role": role, "term": term, "leader": leader, **indexes, "links": links, **more}


class Scene:
    """An observer and its clock; ``events`` are all texts so far."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.observer = Observer(NODES, self.now_s)

    def see(self, node: str, role: str, term: int, leader: str | None = None, **more: Any) -> None:
        self.observer.answered(node, report(node, role, term, leader, **more), self.now_s)

    def lose(self, node: str) -> None:
        self.observer.lost(node, "connection refused", self.now_s)

    @property
    def events(self) -> list[str]:
        return [event.text for event in self.observer.events]


@pytest.fixture
def steady() -> Scene:
    scene = Scene()
    scene.see("n1", "leader", 3, "n1")
    scene.see("n2", "follower", 3, "n1")
    scene.see("n3", "follower", 3, "n1")
    return scene


def test_the_first_look_tells_who_leads(steady: Scene) -> None:
    assert steady.events == ["n1 leads, term 3"]


def test_nothing_new_is_no_event(steady: Scene) -> None:
    for role, node in (("leader", "n1"), ("follower", "n2"), ("follower", "n3")):
        steady.see(node, role, 3, "n1", commit=500)
    assert len(steady.events) == 1


def test_a_failover_from_loss_to_return(steady: Scene) -> None:
    steady.now_s += 0.25
    steady.lose("n1")
    steady.see("n2", "candidate", 4)
    steady.now_s += 0.25
    steady.lose("n1")
    steady.see("n2", "leader", 4, "n2")
    steady.now_s += 9.5
    steady.see("n1", "follower", 4, "n2")
    assert steady.events[1:] == [
        "n1, the leader, does not answer: connection refused",
        "no leader answers",
        "n2 stands for election, term 4",
        "n2 leads, term 4 (n1 was last seen leading 0.5 s ago)",
        "n1 is back after 9.8 s",
    ]


def test_a_deposed_leader_that_has_not_noticed_is_not_the_leader(steady: Scene) -> None:
    steady.see("n2", "leader", 4, "n2")
    steady.see("n1", "leader", 3, "n1")
    leader = leader_of(steady.observer.views)
    assert leader is not None
    assert leader.node == "n2"
    assert "old leader" in plain_table(steady.observer.views, steady.now_s)
    assert steady.events[1:] == ["n2 leads, term 4 (n1 was last seen leading 0.0 s ago)"]


def test_a_leader_whose_term_is_over_does_not_lead(steady: Scene) -> None:
    steady.see("n2", "candidate", 4)
    assert leader_of(steady.observer.views) is None
    assert steady.events[1:] == ["n2 stands for election, term 4", "no leader answers"]


def test_a_node_that_is_dead_from_the_start() -> None:
    scene = Scene()
    scene.lose("n1")
    scene.see("n2", "follower", 3, "n3")
    scene.see("n3", "leader", 3, "n3")
    assert scene.events == ["n1 does not answer: connection refused", "n3 leads, term 3"]


def test_no_leader_is_told_once_and_only_when_all_were_asked() -> None:
    scene = Scene()
    for _ in range(2):
        for node in NODES:
            scene.see(node, "follower", 3)
    assert scene.events == ["no leader answers"]


def test_the_same_leader_again_after_a_gap_is_told(steady: Scene) -> None:
    steady.lose("n1")
    steady.now_s += 2
    steady.see("n1", "leader", 3, "n1")
    assert steady.events[-2:] == [
        "n1 is back after 2.0 s",
        "n1 leads, term 3 (n1 was last seen leading 2.0 s ago)",
    ]


def test_events_are_bounded(steady: Scene) -> None:
    for _ in range(500):
        steady.lose("n2")
        steady.see("n2", "follower", 3, "n1")
    assert len(steady.events) == 200


@pytest.mark.parametrize(("applied", "expected"), [(10, 0), (4, 6), (12, 0)])
def test_lag(steady: Scene, applied: int, expected: int) -> None:
    steady.see("n2", "follower", 3, "n1", last_applied=applied)
    views = steady.observer.views
    assert lag(views[1], leader_of(views)) == expected


def test_the_plain_table(steady: Scene) -> None:
    steady.lose("n3")
    steady.see("n1", "leader", 3, "n1", links={"n2": {"connected": True}, "n3": {"connected": False}})
    steady.now_s += 7
    assert plain_table(steady.observer.views, steady.now_s).splitlines() == [
        "NODE  ROLE         TERM  LEADER  COMMIT  APPLIED  LAST  LAG  REVISION  LINKS",
        "n1    leader       3     n1      10      10       10    0    9         n2 up, n3 DOWN",
        "n2    follower     3     n1      10      10       10    0    9         n1 up, n3 up",
        "n3    unreachable  -     -       -       -        -     -    -         connection refused, 7 s ago",
    ]


def test_the_live_view_fits_80_columns_and_shows_the_newest_events(steady: Scene) -> None:
    for _ in range(20):
        steady.lose("n2")
        steady.see("n2", "follower", 3, "n1")
    steady.lose("n3")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(live_view(steady.observer.views, steady.observer.events, steady.now_s, 80, 10))
    lines = console.export_text().splitlines()
    assert lines[0].split() == ["NODE", "ROLE", "TERM", "LEADER", "COMMIT", "APPLIED", "LAG", "LINKS"]
    assert lines[1].split()[-4:] == ["n2", "up,", "n3", "up"]
    assert sum("answer" in line or "is back" in line for line in lines) == 10
    assert lines[-1].endswith("n3 does not answer: connection refused")


@pytest.mark.parametrize(
    ("down", "expected"),
    [
        ((), "n1 leads term 3 with 3 of 3 nodes; 1 more may be lost"),
        (("n2",), "n1 leads term 3 with 2 of 3 nodes; none may be lost"),
        (("n2", "n3"), "n1 leads term 3 with 1 of 3 nodes: no majority"),
    ],
)
def test_the_summary_says_how_many_more_may_be_lost(down: tuple[str, ...], expected: str) -> None:
    links = {node: {"connected": node not in down} for node in ("n2", "n3")}
    view = NodeView("http://a", "n1", report("n1", "leader", 3, "n1", links=links), None, 0.0)
    assert summary([view]).plain == expected


def test_strange_reports_are_shown_not_believed() -> None:
    observer = Observer(["e"], 0.0)
    observer.answered("e", {"term": "x", "links": 7, "role": None, "commit_index": None}, 1.0)
    assert plain_table(observer.views, 1.0).splitlines()[1].split()[:3] == ["e", "None", "-"]
