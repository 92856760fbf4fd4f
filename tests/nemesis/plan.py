"""What happens when: a seed draws the faults, whom they hit, and how long they last. Pure.

A round is a row of windows. In a window faults begin every few seconds, and may overlap; at its end all is
healed, the cluster must answer again, and a calm time follows. Kinds are dealt from a shuffled deck, so that
a short run has all of them.

Whom a fault hits is drawn as *ranks*: 0 is whoever leads when it begins, the others follow by name.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    KILL = "kill"  # -9, and a restart
    KILL_ALL = "kill-all"  # -9 of all at once
    STORM = "restart-storm"  # kills and restarts in quick succession
    STOP = "stop"  # SIGTERM, and a restart
    ROLLING = "rolling-restart"  # SIGTERM to one after the other, each once the one before serves again
    PAUSE = "pause"  # SIGSTOP, SIGCONT
    PAUSE_MAJORITY = "pause-majority"
    ISOLATE = "isolate"  # one from all others
    SPLIT = "split"  # into two sides
    BRIDGE = "bridge"  # two halves that only one node sees both of
    MUTE = "mute"  # it hears, and isn't heard
    DEAF = "deaf"  # it is heard, and doesn't hear
    CUT_PAIR = "cut-pair"  # two from each other
    ONE_WAY = "one-way"  # one doesn't reach one other
    SLOW_LINKS = "slow-links"  # of one node
    SLOW_DISK = "slow-disk"  # every fsync takes long
    BAD_DISK = "bad-disk"  # the next fsync fails
    FULL_DISK = "full-disk"
    SNAPSHOT = "snapshot"  # asked for again and again; then a kill -9
    ADD = "add-member"  # a new one votes, perhaps while another is dead; then that other is removed
    REMOVE = "remove-member"  # and a new one is added later
    REPLACE = "replace-member"  # kill -9, its disk is gone; a new one takes its place in one step


class Ability(StrEnum):
    """What a machine, or a round's network, can do."""

    STRACE = "strace"  # inject into system calls
    MOUNT = "mount"  # a small filesystem
    LAG = "lag"  # make links slow


NEEDS = {
    Kind.SLOW_LINKS: Ability.LAG,
    Kind.SLOW_DISK: Ability.STRACE,
    Kind.BAD_DISK: Ability.STRACE,
    Kind.FULL_DISK: Ability.MOUNT,
}
NETWORK = frozenset(
    {
        Kind.ISOLATE,
        Kind.SPLIT,
        Kind.BRIDGE,
        Kind.MUTE,
        Kind.DEAF,
        Kind.CUT_PAIR,
        Kind.ONE_WAY,
        Kind.SLOW_LINKS,
    }
)
# These change who the members are: one at a time.
MEMBERS = frozenset({Kind.ADD, Kind.REMOVE, Kind.REPLACE})
# How many of each kind are in a deck, where it isn't one.
COPIES = {Kind.KILL: 2, Kind.PAUSE: 2, Kind.ISOLATE: 2}
BRIDGE_NODES = 5  # with three, a bridge is a cut pair

WINDOW_S = (10.0, 18.0)
GAP_S = (2.0, 5.0)
LASTS_S = (0.5, 4.0)
CALM_S = (1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    at_s: float  # since the begin of its window
    lasts_s: float
    ranks: tuple[int, ...]  # whom it hits, distinct; the sides of a split and of a bridge, one of them
    severity: float  # 0 to 1: of a lag, a slow disk
    resets: bool  # of a cut: the ends see their connections reset, instead of silence

    def __str__(self) -> str:
        manner = " (resets)" if self.resets and self.kind in NETWORK else ""
        return f"{self.kind}{manner} {','.join(map(str, self.ranks))} for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Window:
    faults: tuple[Fault, ...]
    lasts_s: float
    calm_s: float


class Planner:
    """Draws round after round; the same seed and the same calls give the same windows."""

    def __init__(self, seed: int, kinds: Collection[Kind] = frozenset(Kind)) -> None:
        """``kinds``: no others are drawn."""
        self._chance = random.Random(seed)
        self._kinds = frozenset(kinds)
        self._deck: list[Kind] = []

    def round(self, nodes: int, seconds: float, abilities: Collection[Ability]) -> list[Window]:
        """Windows of ``seconds`` in all, for a cluster of ``nodes``; none needs more than ``abilities``."""
        windows = []
        left_s = seconds
        while left_s > 0:
            lasts_s = min(left_s, self._chance.uniform(*WINDOW_S))
            faults = tuple(self._faults(nodes, lasts_s, abilities))
            windows.append(Window(faults, lasts_s, self._chance.uniform(*CALM_S)))
            left_s -= lasts_s + windows[-1].calm_s
        return windows

    def _faults(self, nodes: int, lasts_s: float, abilities: Collection[Ability]) -> Iterator[Fault]:
        chance = self._chance
        at_s = chance.uniform(0.2, 1.0)
        while at_s < lasts_s:
            kind = self._deal(nodes, abilities)
            if kind is None:
                return
            yield Fault(
                kind,
                at_s,
                chance.uniform(*LASTS_S),
                self._ranks(kind, nodes),
                chance.random(),
                chance.random() < 0.4,
            )
            at_s += chance.uniform(*GAP_S)

    def _deal(self, nodes: int, abilities: Collection[Ability]) -> Kind | None:
        """The topmost card that can be played here; the others keep their places. None: no kind can."""

        def playable(kind: Kind) -> bool:
            return (kind not in NEEDS or NEEDS[kind] in abilities) and (
                kind is not Kind.BRIDGE or nodes >= BRIDGE_NODES
            )

        if not any(playable(kind) for kind in self._kinds):
            return None
        if not any(playable(kind) for kind in self._deck):
            fresh = [kind for kind in Kind if kind in self._kinds for _ in range(COPIES.get(kind, 1))]
            self._chance.shuffle(fresh)
            self._deck = fresh
        card = next(kind for kind in self._deck if playable(kind))
        self._deck.remove(card)
        return card

    def _ranks(self, kind: Kind, nodes: int) -> tuple[int, ...]:
        chance = self._chance
        match kind:
            case Kind.KILL_ALL | Kind.ROLLING:
                count = nodes
            case Kind.STORM:
                count = chance.randint(2, nodes)
            case Kind.PAUSE_MAJORITY:
                count = nodes // 2 + 1
            case Kind.SPLIT | Kind.BRIDGE:
                count = nodes // 2
            case Kind.CUT_PAIR | Kind.ONE_WAY:
                count = 2
            case _:
                count = 1
        ranks = chance.sample(range(nodes), count)
        # The leader is the more interesting one.
        if 0 not in ranks and chance.random() < 0.3:
            ranks[0] = 0
        return tuple(ranks)
