"""Who the members are, and where they live; asks the cluster to change that, and waits until it has.

Rules: one change at a time, for the next may destroy a disk that this one still needs. What the cluster
can't do now (nobody leads, too few are heard from, another change is under way) is asked for again, and
counted. What it can't do for ``CHANGE_DEADLINE_S`` is a mistake: no fault lasts so long.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.harness import Cluster, Node
from tests.nemesis.pace import pause
from tests.nemesis.places import Place

PATH = "/v1/cluster/members"
CHANGE_DEADLINE_S = 60.0
ASK_TIMEOUT_S = 2.0  # the server's
PATIENCE_S = 1.0  # beyond it
POLL_S = 0.1
# "Not now", in the interface's words; what else isn't 200 is a mistake.
NOT_NOW = (409, 429, 503, 504)


class Roster:
    """``members`` changes as they do. ``figures``: how the changes that were asked for were answered."""

    def __init__(self, directory: Path, places: Sequence[Place], options: Sequence[str]) -> None:
        self.members: list[Node] = []  # and who is to be one: its process was started
        self.everyone: list[Node] = []  # whoever was one
        self.figures: Counter[str] = Counter()
        self.changing = asyncio.Lock()
        self.on_moved: Callable[[], None] = lambda: None  # after ``members`` has changed
        self._directory = directory
        self._places = list(places)
        self._options = tuple(options)
        self._homes: dict[str, Place] = {}

    def found(self, count: int, module: tuple[str, ...]) -> None:
        """The first members, n1, n2 ..., in the first places. ``module`` is what runs them and all others."""
        self._module = module
        names = [f"n{number}" for number in range(1, count + 1)]
        cluster = ",".join(f"{n}={place.address}" for n, place in zip(names, self._places, strict=False))
        for place in self._places[:count]:
            self._settle(place, cluster=cluster)

    def home(self, node: Node) -> Place:
        """Where it lives, or lived."""
        return self._homes[node.name]

    def newcomer(self) -> Node:
        """One with a new id, in a free place, that is to be started and added. Raises StopIteration."""
        inhabited = [self.home(node) for node in self.members]
        place = next(place for place in self._places if place not in inhabited)
        return self._settle(place, join=",".join(node.url for node in self.members))

    def _settle(self, place: Place, *, cluster: str = "", join: str = "") -> Node:
        name = f"n{len(self.everyone) + 1}"
        node = Node(
            name,
            place.port,
            place.peer_port,
            place.disk / name,
            self._directory / f"{name}.log",
            cluster,
            ("--advertise-peer", place.address, *self._options),
            host=place.host,
            module=(*place.launcher, *self._module),
            join=join,
        )
        self._homes[name] = place
        self.everyone.append(node)
        self.members.append(node)
        self.on_moved()
        return node

    def leave(self, node: Node) -> None:
        """It is no member any more, and its process is over: its disk goes, and its place is free."""
        assert not node.alive
        self.wipe(node)
        self.members.remove(node)
        self.on_moved()

    @staticmethod
    def wipe(node: Node) -> None:
        if node.data_dir.exists():
            shutil.rmtree(node.data_dir)

    # -- asking the cluster --------------------------------------------------------------------------------

    async def add(self, cluster: Cluster, node: Node, *, instead_of: Node | None = None) -> None:
        """Until it votes, and ``instead_of`` is no member. Raises AssertionError."""
        body: dict[str, Any] = {"id": node.name, "address": self.home(node).address}
        if instead_of is not None:
            body["replaces"] = instead_of.name
        await self._change(cluster, "POST", PATH, body)
        await self._decided(cluster, {each.name for each in self.members if each is not instead_of})

    async def remove(self, cluster: Cluster, node: Node) -> None:
        """Until that is decided. Raises AssertionError."""
        await self._change(cluster, "DELETE", f"{PATH}/{node.name}", None)
        await self._decided(cluster, {each.name for each in self.members if each is not node})

    async def _change(self, cluster: Cluster, method: str, path: str, body: dict[str, Any] | None) -> None:
        """Asks one member after the other. NB: asking again for what is done already is answered as done."""

        async def answered(node: Node) -> bool:
            timeout = aiohttp.ClientTimeout(ASK_TIMEOUT_S + PATIENCE_S)
            target = f"{path}?timeout={ASK_TIMEOUT_S:g}s"
            try:
                reply = await cluster.request(method, node, target, json=body, timeout=timeout)
            except (aiohttp.ClientError, TimeoutError):
                self.figures["not answered"] += 1
                return False
            assert reply.status == 200 or reply.status in NOT_NOW, f"{method} {path}: {reply}"
            self.figures["done" if reply.status == 200 else reply.body["outcome"]] += 1
            return reply.status == 200

        await self._until_one(answered, f"{method} {path} {body or ''}")

    async def _decided(self, cluster: Cluster, wanted: set[str]) -> None:
        """Wait until a member knows that these are the members for good, and that all of them vote."""

        async def sees(node: Node) -> bool:
            listed = await voters(cluster, node)
            return listed is not None and set(listed) == wanted

        await self._until_one(sees, f"{', '.join(sorted(wanted))} are the members, and vote")

    async def _until_one(self, said_yes: Callable[[Node], Awaitable[bool]], what: str) -> None:
        """Ask in turn until one says yes. Raises AssertionError after ``CHANGE_DEADLINE_S``."""
        deadline = time.monotonic() + CHANGE_DEADLINE_S
        for node in self._in_turn():
            if await said_yes(node):
                return
            assert time.monotonic() < deadline, f"not within {CHANGE_DEADLINE_S:g} s: {what}"
            await pause(POLL_S)

    def _in_turn(self) -> Iterator[Node]:
        """The members, as they are at each turn; not always the same first."""
        turn = len(self.everyone)
        while True:
            yield self.members[turn % len(self.members)]
            turn += 1


async def voters(cluster: Cluster, node: Node) -> list[str] | None:
    """The members as ``node`` has them, if all of them vote and that is final; None: not so, or no answer."""
    timeout = aiohttp.ClientTimeout(PATIENCE_S)
    try:
        reply = await cluster.request("GET", node, PATH, timeout=timeout)
    except (aiohttp.ClientError, TimeoutError):
        return None
    is_final = reply.status == 200 and reply.body["committed"] and not reply.body["joint"]
    roles = {each["id"]: each["role"] for each in reply.body.get("members", [])}
    return sorted(roles) if is_final and set(roles.values()) <= {"voter", "leader"} else None
