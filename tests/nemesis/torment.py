"""Does to real nodes what the plan says, and undoes it.

Rules: whoever is hit is *busy* until all is undone, and no other fault touches its process or disk meanwhile
(cuts of the network may overlap with anything). A node may stop by itself only while its disk is bad or full,
with the disk's exit code, or once it was removed; any other end is a violation. Nothing here destroys what an
fsync confirmed, but the disk of a node that is no member any more, or is being replaced. One fault at a time
changes the members, and leaves as many as it found.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import aiohttp

from tests.cluster.abilities import injecting
from tests.cluster.harness import Cluster, Node, until
from tests.nemesis.diary import Diary
from tests.nemesis.links import Links, Pair, both_ways
from tests.nemesis.pace import pause
from tests.nemesis.places import Place
from tests.nemesis.plan import MEMBERS, NETWORK, Fault, Kind
from tests.nemesis.roster import Roster

EXIT_DISK = 74
# Of a start with a full disk: the directory can't be used.
EXIT_DIRECTORY = 73
POLL_S = 0.05
MAX_FSYNC_S = 0.4
MAX_LAG_S = 0.15
DETACH_DEADLINE_S = 10.0
# A removed node that was told ends by itself, a second later; one that wasn't waits for ever.
TOLD_WITHIN_S = 3.0
# The share of additions under which another node is killed.
KILLED_MEANWHILE = 0.5
EVERYONE = (Kind.KILL_ALL, Kind.ROLLING)  # however many there are just now


class Torment:
    """``small_disk``: the place whose disk is a small filesystem, if there is one."""

    def __init__(
        self, cluster: Cluster, roster: Roster, links: Links, small_disk: Place | None, diary: Diary
    ) -> None:
        """``cluster.nodes`` are ``roster.members``."""
        self._cluster = cluster
        self.roster = roster
        self.diary = diary
        self._links = links
        self._small_disk = small_disk
        self._busy: set[str] = set()
        self.done: Counter[str] = Counter()  # by kind
        self.left_out: Counter[str] = Counter()  # by kind: whom it would hit was busy
        self.violations: list[str] = []

    def start(self, node: Node) -> None:
        self.diary.note(f"start {node.name}")
        node.start(self.roster.home(node).wrapper)

    def look_for_deaths(self) -> None:
        """A node that isn't busy is alive; else that is noted, and it is started again."""
        for node in self._cluster.nodes:
            if node.name not in self._busy and not node.alive:
                self._died(node)
                self.start(node)

    def _died(self, node: Node) -> None:
        code = node.process.returncode if node.process is not None else None
        words = node.last_words()[-3:]
        self.diary.note(f"{node.name} stopped by itself: exit code {code}")
        self.violations.append(f"{node.name} stopped by itself: exit code {code}; its last words: {words}")

    async def inflict(self, fault: Fault) -> str | None:
        """From its begin to its end, all undone; in words, whom it hit, or None: all were busy."""
        async with self.roster.changing if fault.kind in MEMBERS else nullcontext():
            ranked = await self._ranked()
            hit = self._on_network if fault.kind in NETWORK else self._on_nodes
            words = await hit(fault, ranked)
        (self.done if words is not None else self.left_out)[fault.kind] += 1
        return words

    async def _ranked(self) -> list[Node]:
        """The leader first, as far as anyone says; then the others by name. A paused node can't be asked."""
        asked = [node for node in self._cluster.nodes if node.alive and node.name not in self._busy]
        statuses = await asyncio.gather(*(self._cluster.status(node) for node in asked))
        terms = {
            n.name: s["term"] for n, s in zip(asked, statuses, strict=True) if s and s["role"] == "leader"
        }
        leader = max(terms, key=lambda name: terms[name], default="")
        return sorted(self._cluster.nodes, key=lambda node: (node.name != leader, node.name))

    # -- the network ---------------------------------------------------------------------------------------

    async def _on_network(self, fault: Fault, ranked: Sequence[Node]) -> str | None:
        nodes = chosen(ranked, fault.ranks)
        self.diary.note(f"begin {fault.kind} {names(nodes)}")
        hit = [self.roster.home(node) for node in nodes]
        rest = [self.roster.home(node) for node in ranked if node not in nodes]
        pairs: list[Pair]
        match fault.kind:
            case Kind.ISOLATE | Kind.SPLIT | Kind.SLOW_LINKS:
                pairs = both_ways(hit, rest)
            case Kind.BRIDGE:
                pairs = both_ways(hit, rest[1:])
            case Kind.MUTE:
                pairs = [(hit[0], other) for other in rest]
            case Kind.DEAF:
                pairs = [(other, hit[0]) for other in rest]
            case Kind.CUT_PAIR:
                pairs = both_ways(hit[:1], hit[1:])
            case _:
                pairs = [(hit[0], hit[1])]
        if fault.kind is Kind.SLOW_LINKS:
            self._links.lag(pairs, MAX_LAG_S * fault.severity)
            await pause(fault.lasts_s)
            self._links.lag(pairs, 0.0)
        else:
            self._links.cut(pairs, resets=fault.resets)
            await pause(fault.lasts_s)
            self._links.mend(pairs)
        self.diary.note(f"end {fault.kind} {names(nodes)}")
        return names(nodes)

    # -- processes and disks -------------------------------------------------------------------------------

    async def _on_nodes(self, fault: Fault, ranked: Sequence[Node]) -> str | None:
        async with self._taken(fault, ranked) as hit:
            if not hit:
                self.diary.note(f"left out {fault.kind}: all busy")
                return None
            self.diary.note(f"begin {fault.kind} {names(hit)}")
            match fault.kind:
                case Kind.KILL | Kind.KILL_ALL:
                    await self._kill(hit, fault.lasts_s)
                case Kind.STORM:
                    await self._storm(hit, fault.lasts_s)
                case Kind.STOP:
                    await self._stop(hit[0])
                    await pause(fault.lasts_s)
                case Kind.ROLLING:
                    await self._roll(hit)
                case Kind.PAUSE | Kind.PAUSE_MAJORITY:
                    await self._pause(hit, fault.lasts_s)
                case Kind.SLOW_DISK:
                    delay_us = int(1e6 * MAX_FSYNC_S * max(0.05, fault.severity))
                    async with self._injected(hit[0], f"delay_enter={delay_us}"):
                        await pause(fault.lasts_s)
                case Kind.BAD_DISK:
                    await self._bad_disk(hit[0], fault.lasts_s)
                case Kind.FULL_DISK:
                    await self._full_disk(hit[0], fault.lasts_s)
                case Kind.SNAPSHOT:
                    await self._snapshot(hit[0], fault.lasts_s)
                case Kind.ADD:
                    await self._add(hit[0], fault)
                case Kind.REMOVE:
                    await self._remove(hit[0])
                    await pause(fault.lasts_s)
                    await self.roster.add(self._cluster, self._newcomer())
                case Kind.REPLACE:
                    await self._replace(hit[0])
                case _:
                    raise AssertionError(fault.kind)
            for node in hit:
                if node in self.roster.members and not node.alive:
                    self.start(node)
            self.diary.note(f"end {fault.kind} {names(hit)}")
            return names(hit)

    @asynccontextmanager
    async def _taken(self, fault: Fault, ranked: Sequence[Node]) -> AsyncIterator[list[Node]]:
        """Whom it hits: those meant, or others where those are busy; nobody if too few are free."""
        wanted = chosen(ranked, fault.ranks, count=len(ranked))
        if fault.kind is Kind.FULL_DISK:
            wanted = [node for node in wanted if self.roster.home(node) is self._small_disk]
        count = len(ranked) if fault.kind in EVERYONE else min(len(fault.ranks), len(ranked))
        # NB: they may have changed since they were ranked.
        free = [node for node in wanted if node in self.roster.members and node.name not in self._busy]
        hit = free[:count] if len(free) >= count else []
        self._busy.update(node.name for node in hit)
        try:
            for node in hit:
                if not node.alive:
                    self._died(node)
                    self.start(node)
            yield hit
        finally:
            self._busy.difference_update(node.name for node in hit)

    async def _kill(self, nodes: Sequence[Node], down_s: float) -> None:
        for node in nodes:
            node.kill()
        for node in nodes:
            await self._ended(node, (-signal.SIGKILL,))
        await pause(down_s)

    async def _storm(self, nodes: Sequence[Node], lasts_s: float) -> None:
        """Each of them twice, one after the other, up again at once: some die before they serve."""
        for node in (*nodes, *nodes):
            node.kill()
            await self._ended(node, (-signal.SIGKILL,))
            self.start(node)
            await pause(lasts_s / (2 * len(nodes)))

    async def _stop(self, node: Node) -> None:
        """As its operator would: it hands over, answers whom it can, and ends well."""
        codes: tuple[int, ...] = (0,)
        if await self._cluster.status(node) is None:  # it may be starting, and not heed signals yet
            codes = (0, -signal.SIGTERM)
        if node.alive:
            node.signal(signal.SIGTERM)
        await self._ended(node, codes)

    async def _roll(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            await self._stop(node)
            self.start(node)
            await self._cluster.serves_or_ended(node)

    async def _snapshot(self, node: Node, lasts_s: float) -> None:
        """Asked for again and again; killed while the last is perhaps being taken."""
        deadline = time.monotonic() + lasts_s
        while time.monotonic() < deadline and node.alive:
            with suppress(aiohttp.ClientError, TimeoutError):  # whether it can depends on its disk
                await self._cluster.request("POST", node, "/v1/snapshot")
            await pause(POLL_S)
        await self._kill([node], 0.0)

    async def _add(self, veteran: Node, fault: Fault) -> None:
        """One comes, at times while another is dead; then that one goes."""
        adding = self.roster.add(self._cluster, self._newcomer())
        if fault.severity < KILLED_MEANWHILE:
            await asyncio.gather(adding, self._kill([veteran], fault.lasts_s))
            self.start(veteran)
        else:
            await adding
            await pause(fault.lasts_s)
        await self._remove(veteran)

    async def _replace(self, node: Node) -> None:
        """Its disk is gone for good; another id takes its place in one step."""
        await self._kill([node], 0.0)
        self.roster.wipe(node)
        await self.roster.add(self._cluster, self._newcomer(), instead_of=node)
        self.roster.leave(node)

    def _newcomer(self) -> Node:
        node = self.roster.newcomer()
        self.start(node)
        return node

    async def _remove(self, node: Node) -> None:
        """It ends by itself if it hears of it; a node that was away isn't told, and is stopped."""
        await self.roster.remove(self._cluster, node)
        self.diary.note(f"{node.name} is removed")
        await self._until_ended(node, TOLD_WITHIN_S)
        self.roster.figures["ended by itself" if not node.alive else "had to be stopped"] += 1
        await (self._stop(node) if node.alive else self._ended(node, (0,)))
        self.roster.leave(node)

    async def _pause(self, nodes: Sequence[Node], lasts_s: float) -> None:
        for node in nodes:
            node.signal(signal.SIGSTOP)
        try:
            await pause(lasts_s)
        finally:
            for node in nodes:
                node.signal(signal.SIGCONT)

    @asynccontextmanager
    async def _injected(self, node: Node, injection: str) -> AsyncIterator[Path]:
        """As long as it is open; the file is what strace has written when it is closed."""
        traced = self._cluster.directory / f"{node.name}.strace"
        command = ["strace", "-f", *injecting(injection, traced), "-p", str(node.pid)]
        # NB: not asyncio's: it wants to be the one that waits, and ``terminate`` does that too.
        tracer = await asyncio.to_thread(
            subprocess.Popen, command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield traced
        finally:
            tracer.terminate()  # it detaches
            await until(lambda: tracer.poll() is not None, "strace detaches", DETACH_DEADLINE_S)

    async def _bad_disk(self, node: Node, lasts_s: float) -> None:
        """Every fsync fails. If there was one, the node ends."""
        async with self._injected(node, "error=EIO") as traced:
            await self._until_ended(node, lasts_s)
        if "INJECTED" in traced.read_text(errors="replace"):
            await self._ended(node, (EXIT_DISK,))

    async def _full_disk(self, node: Node, lasts_s: float) -> None:
        ballast = node.data_dir / "ballast"
        codes: Sequence[int] = (EXIT_DISK,)
        fill(ballast)
        try:
            await self._until_ended(node, lasts_s)
            if (
                not node.alive
            ):  # full as it is it can't start, or not for long: it says so, and breaks nothing
                await self._ended(node, codes)
                self.start(node)
                codes = (EXIT_DISK, EXIT_DIRECTORY)
                await self._until_ended(node, lasts_s)
        finally:
            ballast.unlink()
        await self._cluster.serves_or_ended(node)
        status = await self._cluster.status(node)
        if status is None or status["disk"]["failed"]:  # it is about to end
            await self._ended(node, codes)

    async def _until_ended(self, node: Node, within_s: float) -> None:
        """Wait so long at most: it may not write at all."""
        deadline = time.monotonic() + within_s
        while node.alive and time.monotonic() < deadline:
            await pause(POLL_S)

    async def _ended(self, node: Node, codes: Sequence[int]) -> None:
        """Wait for its end, which must be one of ``codes``. Raises AssertionError where it doesn't end."""
        if await node.exit_code() not in codes:
            self._died(node)


def fill(path: Path) -> None:
    """Write to ``path`` until its filesystem is full."""
    chunk = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        try:
            while chunk:
                if file.write(chunk) < len(chunk):
                    chunk = chunk[: len(chunk) // 2]
        except OSError:
            pass  # as wanted


def chosen(ranked: Sequence[Node], ranks: Sequence[int], count: int | None = None) -> list[Node]:
    """Those of ``ranks``, then those that follow on the first; ``count`` in all, by default as many as ranks.

    There may be fewer nodes than the ranks were drawn for, or more: a change of members is under way.
    """
    size = len(ranked)
    followers = ((ranks[0] + step) % size for step in range(size))
    order = dict.fromkeys([*(rank for rank in ranks if rank < size), *followers])
    return [ranked[rank] for rank in order][: len(ranks) if count is None else count]


def names(nodes: Sequence[Node]) -> str:
    return ",".join(node.name for node in nodes)
