"""Watchers on all nodes while nodes die: each goes on elsewhere, and has seen exactly what was done."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, cycle, groupby
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster.harness import Cluster, Node, running

pytestmark = pytest.mark.cluster

WRITERS = 4
STALL_S = 5.0
# Nodes that come back may be sent a snapshot.
OFTEN = ("--segment-bytes", "16384", "--snapshot-bytes", "100000", "--snapshot-margin-bytes", "20000")
Done = dict[str, str | None]  # keys with their values; None: deleted


@dataclass
class Log:
    """What the writers did, by revision, and what may have been done."""

    done: dict[int, Done] = field(default_factory=dict)
    unknown: list[Done] = field(default_factory=list)
    is_over: bool = False

    @property
    def last(self) -> int:
        return max(self.done, default=0)


@dataclass
class Watcher:
    """Reads ``/v1/watch`` from node to node; ``resumed`` counts how often it went on elsewhere."""

    cluster: Cluster
    nodes: Sequence[Node]
    last_id: str | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    resumed: int = -1

    async def run(self) -> None:
        for node in cycle(self.nodes):
            self.resumed += 1
            try:
                await self._read(node)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0)

    async def _read(self, node: Node) -> None:
        headers = {"Last-Event-ID": self.last_id} if self.last_id is not None else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=STALL_S)
        path = "/v1/watch?prefix=w/&from=1&timeout=2s"
        async with self.cluster.session.get(node.url + path, headers=headers, timeout=timeout) as answer:
            if answer.status == 503:
                return
            assert answer.status == 200, await answer.text()
            fields: dict[str, str] = {}
            async for raw in answer.content:
                line = raw.decode()
                if not line.endswith("\n"):
                    return  # it broke off
                if line == "\n":
                    self.last_id = fields["id"]
                    if fields["event"] != "progress":
                        self.events.append((fields["event"], json.loads(fields["data"])))
                    fields = {}
                else:
                    name, _, value = line.rstrip("\n").partition(": ")
                    fields[name] = value

    @property
    def at(self) -> int:
        return self.events[-1][1]["revision"] if self.events else 0

    def seen(self) -> list[tuple[int, Done]]:
        """What came, revision by revision, in the order in which it came."""
        return [
            (revision, {data["key"]: data.get("value") for _, data in events})
            for revision, events in groupby(self.events, key=lambda event: event[1]["revision"])
        ]


async def write(cluster: Cluster, log: Log, writer: int) -> None:
    """Puts, deletions and transactions of several keys, at whichever node takes them."""
    for number in count():
        if log.is_over:
            return
        changes: Done = {f"w/{writer}/{number % 7}": f"{writer}-{number}"}
        if number % 3 == 0:
            changes[f"w/{writer}/also"] = f"{writer}-{number}"
        if number % 7 == 6:
            changes[f"w/{writer}/3"] = None
        ops = [
            {"delete": {"key": key}} if value is None else {"put": {"key": key, "value": value}}
            for key, value in changes.items()
        ]
        node = cluster.nodes[(writer + number) % len(cluster.nodes)]
        try:
            reply = await cluster.request("POST", node, "/v1/txn?timeout=3s", json={"if": [], "then": ops})
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0)
        except (aiohttp.ClientError, TimeoutError):
            log.unknown.append(changes)
        else:
            if reply.status == 200:
                log.done[reply.body["revision"]] = changes
            elif reply.body["outcome"] == "unknown":
                log.unknown.append(changes)


async def go_on(cluster: Cluster, log: Log, watchers: list[Watcher]) -> None:
    """Until more is written, and all watchers have seen it."""
    target = log.last + 30
    await cluster.until(lambda: log.last >= target, "writes go on")
    await cluster.until(lambda: all(each.at >= target for each in watchers), "all watchers go on")


async def test_nothing_is_lost_or_doubled_when_nodes_die(tmp_path: Path) -> None:
    async with running(tmp_path, options=OFTEN) as cluster:
        log = Log()
        nodes = cluster.nodes
        watchers = [Watcher(cluster, nodes[first:] + nodes[:first]) for first in range(3)]
        tasks = [asyncio.create_task(each.run()) for each in watchers]
        writers = [asyncio.create_task(write(cluster, log, number)) for number in range(WRITERS)]
        await go_on(cluster, log, watchers)
        leader = await cluster.leader()
        for node in (leader, *cluster.others(leader)):
            node.signal(signal.SIGTERM if node is cluster.others(leader)[0] else signal.SIGKILL)
            await node.exit_code()
            await go_on(cluster, log, watchers)
            node.start()
            await cluster.caught_up(node)
        log.is_over = True
        await asyncio.gather(*writers)
        # One more write: when a watcher has it, it has all.
        reply = await cluster.put(await cluster.leader(), "w/end", "end")
        log.done[reply.body["revision"]] = {"w/end": "end"}
        end = reply.body["revision"]
        await cluster.until(lambda: all(each.at == end for each in watchers), "all watchers see the end")
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
        check(log, watchers, end)


def check(log: Log, watchers: list[Watcher], end: int) -> None:
    first, *others = [each.seen() for each in watchers]
    assert [revision for revision, _ in first] == list(range(1, end + 1)), "each revision, once, in order"
    assert others == [first, first], "all have seen the same"
    assert all(each.resumed >= 1 for each in watchers), [each.resumed for each in watchers]
    seen = dict(first)
    events = sum(len(changes) for changes in seen.values())
    assert [len(each.events) for each in watchers] == [events] * 3, "no key twice at a revision"
    strangers = [changes for revision, changes in first if revision not in log.done]
    for revision, changes in log.done.items():
        assert seen[revision].items() <= changes.items(), f"at {revision}"
        puts = {key: value for key, value in changes.items() if value is not None}
        assert puts.items() <= seen[revision].items(), f"at {revision}"
    unknown = [set(changes.items()) for changes in log.unknown]
    for changes in strangers:  # who wrote it was not told so
        assert any(set(changes.items()) <= each for each in unknown), changes
