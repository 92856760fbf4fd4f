"""Plays a golden script: a sentence of intent, then commands and, under each, what it led to.

Everything is deterministic: time stands still unless told to move; n1's election timeouts are 300 ms, n2's
310, n3's 320; messages wait in flight until delivered; disks are instant unless told to be slow.

====================================  ==================================================================
``cluster 3 [NAME=NUMBER ...]``       start n1, n2, n3; names are fields of Limits or Timing
``cluster 3 n1=1,1,2 n2=1,1 ...``     the same, with these terms in their logs, durable (Figure 7's way)
``elect n1``                          the usual start, told in one line: n1 leads, its no-op is applied by all
``campaign n1``                       time passes until n1's election timeout; only n1 looks at the clock
``wait 50 [n1 ...]``                  time passes; all (or only these) look at the clock, once, at its end
``deliver [n1→n2 ...] [first N]``     hand over what is in flight, on these links (``n1→*``, ``*→n2`` too)
``settle``                            deliver all, and what that leads to, until nothing is in flight
``drop [n1→n2 ...]``                  lose what is in flight
``copy n1→n2 NAME``                   remember what is in flight on a link; it stays in flight
``replay NAME``                       hand over remembered messages, late or again
``cut n1 n2`` ``cut n1→n2``           from now on, nothing gets through (both ways, one way)
``isolate n1`` ``heal``               cut n1 from all; undo all cuts
``slow n1`` ``fast n1``               writes wait for ``write``; they complete at once (the default)
``write n1 [N]``                      the oldest N (1) writes of n1's disk complete
``propose n1 a b`` ``read n1 7``      a client's batches; a client's read; ``read n1 7 lease``: by lease
``clock n1 90``                       n1 starts anew with a clock that runs at 90 %
``transfer n1 [n2]``                  n1's client wishes that n2 lead, or whoever is fittest
``lost n1 n2``                        n1 is told that its link to n2 broke
``join n4``                           start n4, which knows nobody, to be made a member
``add n1 n4 [promote] [for n2]``      n1's client: let n4 learn; promote it by itself, in n2's place
``promote n1 n4`` ``remove n1 n2``    n1's client: let n4 vote; let n2 be no member any more
``move n1 n2 n2:2``                   n1's client: n2 has another address. All four: ``force`` at the end
``members``                           look: everybody's membership in force, in the notation of ``members.py``
``crash n1 [N]`` ``restart n1``       kill it, after N of its waiting writes; start it from its disk
``snapshot n1 [N]``                   what n1 applied is in a durable snapshot; its log keeps the last N (0)
``arrive n1→n2`` ``fail n1→n2``       the snapshot on its way there has come whole; it never will
``status`` ``logs`` ``progress n1``   look: roles, logs (commit after |), a leader's view of the others
====================================  ==================================================================

Output: messages as they are sent, in the notation of ``text.py``, ``(lost)`` behind those that a cut
swallows; role changes; writes, and ``n1 wrote ...`` when a slow one completes; what is applied; reads that
may be answered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from raftkv.consensus import Envelope, Ready
from raftkv.consensus.types import (
    AddLearner,
    Change,
    Entry,
    Index,
    Limits,
    Move,
    NodeId,
    Promote,
    Remove,
    Timing,
    Write,
)
from tests.consensus.harness import Cluster, Link, Server, Stream, entries
from tests.consensus.members import membership_text
from tests.consensus.text import (
    entries_text,
    entry_text,
    envelope_text,
    progress_text,
    role_text,
    verdict_text,
    write_text,
)


def rendered(script: str) -> str:
    """The script with its expected output replaced by what happens now."""
    lines = script.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(">"))
    out = lines[:start]
    player = Player()
    for line in lines[start:]:
        if line.startswith("#"):
            out += ["", line]
        if line.startswith(">"):
            out += [line, *player.play(line[1:].strip())]
    return "\n".join(out) + "\n"


def _chance(name: str) -> Callable[[float, float], float]:
    """n1 draws the lower bound, n2 a thirtieth of the range more, and so on."""
    share = (int(name[1:]) - 1) / 30
    return lambda low, high: low + share * (high - low)


class Player:
    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._lines: list[str] = []
        self._roles: dict[str, str] = {}
        self._copies: dict[str, list[Envelope]] = {}

    @property
    def cluster(self) -> Cluster:
        assert self._cluster is not None, "a script begins with `cluster`"
        return self._cluster

    def play(self, line: str) -> list[str]:
        self._lines = []
        verb, *arguments = line.split()
        action: Callable[..., None] | None = getattr(self, f"_do_{verb}", None)
        if action is None:
            raise ValueError(f"no such command: {line}")
        action(*arguments)
        return self._lines

    # -- seeing --------------------------------------------------------------------------------------------

    def _sent(self, envelope: Envelope) -> None:
        lost = " (lost)" if (envelope.sender, envelope.receiver) in self.cluster.cuts else ""
        self._lines.append(envelope_text(envelope) + lost)

    def _ready(self, server: Server, ready: Ready) -> None:
        assert server.node is not None
        role = role_text(server.node)
        if self._roles.get(server.node_id) != role:
            self._roles[server.node_id] = role
            self._lines.append(role)
        if ready.installed is not None:
            meta = ready.installed
            self._lines.append(f"{server.node_id} installs the snapshot {meta.index}@{meta.term}")
        if ready.write is not None:
            self._lines.append(f"{server.node_id} writes {write_text(ready.write)}")
        if ready.committed:
            self._lines.append(f"{server.node_id} applies {entries_text(ready.committed)}")
        for answer in ready.change_replies:
            self._lines.append(f"{server.node_id}'s client hears: {verdict_text(answer.reply)}")
        self._lines += [f"{server.node_id} may read {each.read_id} at {each.index}" for each in ready.reads]

    def _streams(self, stream: Stream) -> None:
        self._lines.append(f"{envelope_text(stream.envelope)} is on its way")

    def _wrote(self, server: Server, write: Write) -> None:
        if server.disk.slow:
            self._lines.append(f"{server.node_id} wrote {write_text(write)}")

    # -- commands ------------------------------------------------------------------------------------------

    def _do_cluster(self, size: str, *options: str) -> None:
        logs: dict[str, list[Entry]] = {}
        numbers: dict[str, int] = {}
        for option in options:
            name, value = option.split("=")
            if name.startswith("n") and name[1:].isdigit():
                logs[name] = entries(*map(int, value.split(",")))
            else:
                numbers[name] = int(value)
        known = {field.name for field in dataclasses.fields(Limits)}
        limits = Limits(**{name: value for name, value in numbers.items() if name in known})
        timing = Timing(**{name: value for name, value in numbers.items() if name not in known})
        names = [f"n{i}" for i in range(1, int(size) + 1)]
        self._cluster = Cluster(names, uniform=_chance, limits=limits, timing=timing, logs=logs)
        self._cluster.observe, self._cluster.on_send = self._ready, self._sent
        self._cluster.on_write, self._cluster.on_stream = self._wrote, self._streams
        self._roles = {name: role_text(self._cluster.node(name)) for name in names}

    def _do_elect(self, name: str) -> None:
        self.cluster.elect(name)
        self._lines = [self._roles[name]]

    def _do_campaign(self, name: str) -> None:
        self.cluster.campaign(name)

    def _do_wait(self, ms: str, *names: str) -> None:
        self.cluster.now_ms += float(ms)
        for name in names or [each.node_id for each in self.cluster.living]:
            self.cluster.tick(name)

    def _links(self, patterns: list[str]) -> Iterator[Link]:
        """The links that carry something and match one of ``patterns`` (all, if there are none)."""
        wanted = [pattern.split("→") for pattern in patterns] or [["*", "*"]]
        for link, queue in sorted(self.cluster.links.items()):
            if queue and any(
                source in ("*", link[0]) and target in ("*", link[1]) for source, target in wanted
            ):
                yield link

    def _do_deliver(self, *words: str) -> None:
        patterns, most = list(words), None
        if "first" in patterns:
            at = patterns.index("first")
            patterns, most = patterns[:at], int(patterns[at + 1])
        for link, count in [(link, len(self.cluster.links[link])) for link in self._links(patterns)]:
            for _ in range(count if most is None else min(most, count)):
                if link not in self.cluster.cuts:
                    self.cluster.deliver(link)

    def _do_settle(self) -> None:
        self.cluster.settle()

    def _do_drop(self, *patterns: str) -> None:
        for link in list(self._links(list(patterns))):
            self._lines += [f"{envelope_text(each)} (lost)" for each in self.cluster.links[link]]
            self.cluster.links[link].clear()

    def _do_copy(self, link: str, name: str) -> None:
        source, target = link.split("→")
        self._copies[name] = list(self.cluster.links[(source, target)])
        self._lines += [envelope_text(each) for each in self._copies[name]]

    def _do_replay(self, name: str) -> None:
        for envelope in self._copies[name]:
            self.cluster.receive(envelope)

    def _do_cut(self, one: str, other: str = "") -> None:
        if other:
            self.cluster.cut(one, other)
        else:
            self.cluster.cut(*one.split("→"), both=False)

    def _do_isolate(self, name: str) -> None:
        self.cluster.isolate(name)

    def _do_heal(self) -> None:
        self.cluster.heal()

    def _do_slow(self, name: str) -> None:
        self.cluster.servers[name].disk.slow = True

    def _do_fast(self, name: str) -> None:
        self.cluster.servers[name].disk.slow = False
        self.cluster.turn(self.cluster.servers[name])

    def _do_write(self, name: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.cluster.complete_write(name)

    def _do_propose(self, name: str, *batches: str) -> None:
        if not self.cluster.propose(name, *(batch.encode() for batch in batches)):
            self._lines.append("refused")

    def _do_clock(self, name: str, percent: str) -> None:
        self.cluster.rates[name] = int(percent) / 100
        self.cluster.restart(name)

    def _do_read(self, name: str, read_id: str, *words: str) -> None:
        if not self.cluster.read(name, int(read_id), by_lease="lease" in words):
            self._lines.append("refused")

    def _do_transfer(self, name: str, target: str = "") -> None:
        if not self.cluster.transfer(name, target or None):
            self._lines.append("refused")

    def _do_join(self, name: str) -> None:
        self.cluster.join(name)

    def _change(self, name: str, change: Change, *words: str) -> None:
        if not self.cluster.change(name, change, force="force" in words):
            self._lines.append("refused")

    def _do_add(self, name: str, node: str, *words: str) -> None:
        replaces = NodeId(words[words.index("for") + 1]) if "for" in words else None
        change = AddLearner(NodeId(node), f"{node}:1", "promote" in words, replaces)
        self._change(name, change, *words)

    def _do_promote(self, name: str, node: str, *words: str) -> None:
        self._change(name, Promote(NodeId(node)), *words)

    def _do_remove(self, name: str, node: str, *words: str) -> None:
        self._change(name, Remove(NodeId(node)), *words)

    def _do_move(self, name: str, node: str, address: str, *words: str) -> None:
        self._change(name, Move(NodeId(node), address), *words)

    def _do_members(self) -> None:
        for server in self.cluster.servers.values():
            if server.node is not None:
                self._lines.append(f"{server.node_id} {membership_text(server.node.membership)}")

    def _do_lost(self, name: str, peer: str) -> None:
        self.cluster.peer_lost(name, peer)

    def _do_snapshot(self, name: str, keep: str = "0") -> None:
        meta = self.cluster.snapshot(name, int(keep))
        self._lines.insert(0, f"{name} has a snapshot {meta.index}@{meta.term}")

    def _stream(self, link: str) -> Stream:
        ends = tuple(link.split("→"))
        return next(s for s in self.cluster.streams if (s.envelope.sender, s.envelope.receiver) == ends)

    def _do_arrive(self, link: str) -> None:
        self.cluster.finish(self._stream(link))

    def _do_fail(self, link: str) -> None:
        self.cluster.finish(self._stream(link), arrives=False)

    def _do_crash(self, name: str, written: str = "0") -> None:
        self.cluster.crash(name, int(written))
        self._roles.pop(name)

    def _do_restart(self, name: str) -> None:
        self.cluster.restart(name)
        self.cluster.turn(self.cluster.servers[name])

    def _do_status(self) -> None:
        for server in self.cluster.servers.values():
            self._lines.append(role_text(server.node) if server.node else f"{server.node_id} is down")

    def _do_logs(self) -> None:
        for server in self.cluster.servers.values():
            if server.node is None:
                self._lines.append(f"{server.node_id} is down")
                continue
            log = server.node.log
            texts = [entry_text(each) for each in log.slice(Index(log.boundary.index + 1), 1 << 62)]
            texts.insert(server.node.commit_index - log.boundary.index, "|")
            if log.boundary.index:
                texts.insert(0, f"({log.boundary.index}@{log.boundary.term})")
            self._lines.append(f"{server.node_id}: {' '.join(texts)}")

    def _do_progress(self, name: str) -> None:
        self._lines += progress_text(self.cluster.node(name))
