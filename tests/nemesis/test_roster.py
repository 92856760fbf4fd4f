"""Changes of members are asked for until they are made, and counted; who goes makes room for who comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from tests.cluster.harness import Cluster, Node, Reply
from tests.nemesis import roster as roster_module
from tests.nemesis.judge import other_members
from tests.nemesis.places import make_places
from tests.nemesis.roster import Roster, voters
from tests.nemesis.torment import chosen

Answer = Reply | Exception


def reply(status: int, **body: Any) -> Reply:
    return Reply(status, {}, b"", body)


def listing(*names: str, role: str = "voter", joint: bool = False, committed: bool = True) -> Reply:
    """The last has ``role``."""
    members = [{"id": name, "role": "voter"} for name in names[:-1]] + [{"id": names[-1], "role": role}]
    return reply(200, members=members, joint=joint, committed=committed)


class Answering:
    """Stands for the cluster: gives one answer after the other, and keeps what it was asked."""

    def __init__(self, answers: Sequence[Answer], nodes: Sequence[Node] = ()) -> None:
        self.nodes = list(nodes)
        self.asked: list[tuple[str, str, str]] = []  # method, node, path
        self.bodies: list[Any] = []
        self._answers = list(answers)

    async def request(self, method: str, node: Node, path: str, **arguments: Any) -> Reply:
        self.asked.append((method, node.name, path.partition("?")[0]))
        self.bodies.append(arguments.get("json"))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def cluster(self) -> Cluster:
        return cast(Cluster, self)


@pytest.fixture
def roster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roster:
    """Of n1, n2 and n3, in four places."""
    monkeypatch.setattr(roster_module, "POLL_S", 0.0)
    places = make_places(tmp_path, 4)
    for place in places:
        place.address = f"gate:{place.name}"
    made = Roster(tmp_path, places, ("--segment-bytes", "4096"))
    made.found(3, ("raftkv",))
    return made


def names(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes]


def test_who_founds_and_who_joins(roster: Roster) -> None:
    n1, _, _ = roster.members
    assert n1.cluster == "n1=gate:p1,n2=gate:p2,n3=gate:p3"
    assert n1.options == ("--advertise-peer", "gate:p1", "--segment-bytes", "4096")
    n4 = roster.newcomer()
    assert (n4.cluster, n4.join) == ("", ",".join(node.url for node in roster.members[:3]))
    assert roster.home(n4).address == "gate:p4"
    with pytest.raises(StopIteration):
        roster.newcomer()


def test_a_place_is_given_again_and_an_id_never(roster: Roster) -> None:
    moves: list[list[str]] = []
    roster.on_moved = lambda: moves.append(names(roster.members))
    _, n2, _ = roster.members
    n2.data_dir.mkdir()
    roster.newcomer()
    roster.leave(n2)
    assert not n2.data_dir.exists()
    n5 = roster.newcomer()
    assert roster.home(n5) is roster.home(n2)
    assert n5.data_dir != n2.data_dir
    assert moves == [["n1", "n2", "n3", "n4"], ["n1", "n3", "n4"], ["n1", "n3", "n4", "n5"]]
    assert names(roster.everyone) == ["n1", "n2", "n3", "n4", "n5"]


async def test_what_cannot_be_now_is_asked_for_again_and_counted(roster: Roster) -> None:
    _, n2, _ = roster.members
    answers: list[Answer] = [
        reply(503, outcome="not_applied"),
        aiohttp.ClientConnectionError(),
        reply(409, outcome="not_applied"),
        TimeoutError(),
        reply(504, outcome="unknown"),
        reply(200),
        listing("n1", "n3"),
    ]
    answering = Answering(answers)
    await roster.remove(answering.cluster, n2)
    assert roster.figures == {"not_applied": 2, "not answered": 2, "unknown": 1, "done": 1}
    assert {(method, path) for method, _, path in answering.asked[:6]} == {
        ("DELETE", "/v1/cluster/members/n2")
    }
    assert {name for _, name, _ in answering.asked[:3]} == {"n1", "n2", "n3"}  # one after the other


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_what_no_node_may_answer_is_a_mistake(roster: Roster, status: int) -> None:
    with pytest.raises(AssertionError, match=str(status)):
        await roster.remove(Answering([reply(status, outcome="not_applied")]).cluster, roster.members[0])


async def test_what_never_comes_is_a_mistake(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster_module, "CHANGE_DEADLINE_S", 0.0)
    refusals: list[Answer] = [reply(503, outcome="not_applied")] * 1_000
    with pytest.raises(AssertionError, match="DELETE"):
        await roster.remove(Answering(refusals).cluster, roster.members[0])


async def test_one_that_replaces_is_waited_for_until_it_votes(roster: Roster) -> None:
    dead = roster.members[0]
    n4 = roster.newcomer()
    seen: list[Answer] = [
        listing("n1", "n2", "n3", "n4", role="learner"),
        listing("n2", "n3", "n4", joint=True),
        listing("n2", "n3", "n4", committed=False),
        listing("n2", "n3", "n4", role="leader"),
    ]
    answering = Answering([reply(200), *seen])
    await roster.add(answering.cluster, n4, instead_of=dead)
    assert len(answering.asked) == 1 + len(seen)
    assert answering.bodies[0] == {"id": "n4", "address": "gate:p4", "replaces": "n1"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (listing("n2", "n1"), ["n1", "n2"]),
        (listing("n1", "n2", role="learner"), None),
        (listing("n1", "n2", joint=True), None),
        (listing("n1", "n2", committed=False), None),
        (reply(503, outcome="not_applied"), None),
        (aiohttp.ClientConnectionError(), None),
    ],
    ids=["voters", "learner", "joint", "not committed", "refused", "dead"],
)
async def test_the_voters_are_those_that_are_final(
    roster: Roster, answer: Answer, told: list[str] | None
) -> None:
    assert await voters(Answering([answer]).cluster, roster.members[0]) == told


async def test_the_judge_asks_every_node_who_the_members_are(roster: Roster) -> None:
    right, wrong = listing("n1", "n2", "n3"), listing("n1", "n2", "n4")
    assert await other_members(Answering([right] * 3, roster.members).cluster) == []
    (complaint,) = await other_members(Answering([right, wrong, right], roster.members).cluster)
    assert complaint.startswith("n2 lists as members ['n1', 'n2', 'n4']")


@pytest.mark.parametrize(
    ("ranks", "count", "expected"),
    [
        ((0, 2), None, ["n1", "n3"]),
        ((1,), 3, ["n2", "n3", "n1"]),
        ((0, 2), 3, ["n1", "n3", "n2"]),
        ((4, 1), None, ["n2", "n3"]),  # there are fewer than the ranks were drawn for
        ((3, 0), None, ["n1", "n2"]),
    ],
)
def test_whom_ranks_choose(
    roster: Roster, ranks: tuple[int, ...], count: int | None, expected: list[str]
) -> None:
    assert names(chosen(roster.members, ranks, count)) == expected
