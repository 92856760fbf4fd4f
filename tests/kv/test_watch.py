"""The hub against a list of all there ever was: each watcher gets its changes once, in order, in whole
revisions, whatever comes between, or is told that it is too late; and nobody who has something to get sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from raftkv.kv import watch
from raftkv.kv.history import Compacted, History
from raftkv.kv.row import mod_revision_of, pack_row
from raftkv.kv.store import Store, prefix_end
from raftkv.kv.watch import Hub, Watcher

KEYS = [b"a", b"ab", b"abc", b"b", b"ba", b"c", b"a\xff", b"\xff"]
CHANGES = st.dictionaries(st.sampled_from(KEYS), st.none() | st.binary(max_size=3), min_size=1, max_size=4)
Event = tuple[int, bytes, bool]  # revision, key, whether it was put


def make(store: Store, changes: dict[bytes, bytes | None]) -> None:
    """At one revision."""
    revision = store.revision + 1
    store.take(
        {
            key: None if value is None else pack_row(value, revision, revision, 1, None)
            for key, value in changes.items()
        }
    )


@dataclass(eq=False)
class Seer:
    """A watcher, what it has got, and what it is to get."""

    first: int  # revision
    wants: Callable[[bytes], bool]
    watcher: Watcher
    events: list[Event] = field(default_factory=list)
    was_woken: bool = False  # since its last pull
    is_awake: bool = False


class HubAgainstList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.store.history = History(0)
        self.soon: list[Callable[[], None]] = []
        self.hub = Hub(self.store, self.soon.append)
        self.made: list[dict[bytes, bytes | None]] = []
        self.events: list[Event] = []
        self.seers: list[Seer] = []

    # -- what happens to the store -------------------------------------------------------------------------

    @rule(changes=CHANGES, times=st.integers(1, 6), looks=st.booleans())
    def write(self, changes: dict[bytes, bytes | None], times: int, looks: bool) -> None:
        for _ in range(times):
            there = {key for key in KEYS if self.store.row(key) is not None}
            self.made.append(changes)
            make(self.store, changes)
            revision = self.store.revision
            self.events += [
                (revision, key, value is not None)
                for key, value in changes.items()
                if value is not None or key in there
            ]
        if looks:
            self.hub.look()

    @rule(back=st.integers(0, 8))
    def compact(self, back: int) -> None:
        assert self.store.history is not None
        self.store.history.compact(self.store.revision - back)

    @rule(more=st.lists(CHANGES, max_size=12), back=st.integers(0, 16))
    def install_a_snapshot(self, more: list[dict[bytes, bytes | None]], back: int) -> None:
        """The store of another node that is further, and may have forgotten more."""
        other = Store()
        other.history = History(0)
        for changes in self.made:
            make(other, changes)
        mine, self.store = self.store, other
        for changes in more:
            self.write(changes, 1, looks=False)
        self.store = mine
        other.history.compact(other.revision - back)
        mine.become(other)
        self.hub.look()

    # -- who watches ---------------------------------------------------------------------------------------

    @rule(start=st.sampled_from(KEYS), kind=st.sampled_from("kpr"), after=st.integers(-8, 3) | st.none())
    def begin(self, start: bytes, kind: str, after: int | None) -> None:
        """After a revision in the past, or one to come, or now."""
        position = None if after is None else max(0, self.store.revision + after)
        end = prefix_end(start)
        wants: Callable[[bytes], bool]
        box: list[Seer] = []

        def wake() -> None:
            assert not box[0].was_woken, "once, until it has pulled"
            box[0].was_woken = box[0].is_awake = True

        match kind:
            case "k":
                watcher = self.hub.watch_key(start, position, wake)
                wants = lambda key: key == start  # noqa: E731
            case "p":
                watcher = self.hub.watch_prefix(start, end, position, wake)
                wants = lambda key: key.startswith(start)  # noqa: E731
            case _:
                watcher = self.hub.watch_range(start, None, position, wake)
                wants = lambda key: key >= start  # noqa: E731
        first = (self.store.revision if position is None else position) + 1
        box.append(Seer(first, wants, watcher))
        self.seers += box

    @precondition(lambda self: self.seers)
    @rule(number=st.integers(0, 100))
    def end(self, number: int) -> None:
        self.hub.remove(self.seers.pop(number % len(self.seers)).watcher)

    @rule()
    def others_had_their_turns(self) -> None:
        soon = self.soon.copy()
        self.soon.clear()
        for work in soon:
            work()

    @rule()
    def beat(self) -> None:
        self.hub.beat()

    @precondition(lambda self: any(seer.is_awake for seer in self.seers))
    @rule(number=st.integers(0, 100))
    def pull(self, number: int) -> None:
        awake = [seer for seer in self.seers if seer.is_awake]
        self._pull(awake[number % len(awake)])

    def _pull(self, seer: Seer) -> None:
        assert self.store.history is not None
        seer.was_woken = False
        try:
            pulled = seer.watcher.pull()
        except Compacted:
            assert seer.watcher.position < self.store.history.compacted, "what it needs next is gone"
            self._check(seer)
            self.hub.remove(seer.watcher)
            self.seers.remove(seer)
            return
        seer.is_awake = pulled.more
        seer.events += [(revision, key, new is not None) for revision, key, _, new in pulled.changes]
        for revision, _, _, new in pulled.changes:
            assert new is None or mod_revision_of(new) == revision
        self._check(seer)

    def _check(self, seer: Seer) -> None:
        """It has all that it wants up to its position, and nothing else."""
        last = seer.watcher.position
        assert seer.events == [
            event for event in self.events if seer.first <= event[0] <= last and seer.wants(event[1])
        ]

    def teardown(self) -> None:
        """When nothing happens any more, those who are woken get the rest, and the others have it."""
        self.hub.look()
        while self.soon or any(seer.is_awake for seer in self.seers):
            self.others_had_their_turns()
            for seer in [each for each in self.seers if each.is_awake]:
                self._pull(seer)
        for seer in self.seers:
            self._check(seer)
            wanted = [event for event in self.events if seer.first <= event[0] and seer.wants(event[1])]
            assert seer.events == wanted, "it sleeps, and there is something for it"
        for seer in self.seers:
            self.hub.remove(seer.watcher)
        assert not any((len(self.hub), self.hub._keys, self.hub._prefixes, self.hub._ranges))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few changes are cut into several."""
    monkeypatch.setattr(watch, "_LOOKED_AT", 5)
    monkeypatch.setattr(watch, "_SCANNED", 4)
    monkeypatch.setattr(watch, "_PULLED_BYTES", 60)
    monkeypatch.setattr(watch, "_WOKEN", 2)


HubAgainstList.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


TestHub = HubAgainstList.TestCase


class Counted(Hub):
    """Counts what a look touches."""

    touched = 0

    def _touch(self, group: dict[Watcher, None], revision: int) -> None:
        self.touched += len(group)
        super()._touch(group, revision)


def test_a_write_costs_nothing_for_others() -> None:
    """However many watch other keys."""
    store = Store()
    store.history = History(0)
    hub = Counted(store, lambda work: None)
    for number in range(1000):
        hub.watch_key(b"k%d" % number, None, lambda: None)
        hub.watch_prefix(b"p%d" % number, prefix_end(b"p%d" % number), None, lambda: None)
    make(store, {b"other": b"v"})
    hub.look()
    assert hub.touched == 0
    make(store, {b"k7": b"v", b"p8": b"v"})
    hub.look()
    assert hub.touched == 2


def test_closing_wakes_all_and_whoever_comes_later() -> None:
    store, soon, woken = Store(), list[Callable[[], None]](), list[int]()
    hub = Hub(store, soon.append)
    for number in range(3):
        hub.watch_key(b"k", None, lambda number=number: woken.append(number))  # type: ignore[misc]
    hub.close()
    hub.watch_key(b"k", None, lambda: woken.append(3))
    while soon:
        soon.pop()()
    assert woken == [0, 1, 2, 3]


def test_who_skips_is_in_step() -> None:
    store = Store()
    store.history = History(0)
    hub = Hub(store, lambda work: None)
    watcher = hub.watch_key(b"k", None, lambda: None)
    make(store, {b"k": b"v"})
    watcher.skip()
    assert (watcher.position, watcher.pull().changes) == (1, [])
    make(store, {b"k": b"w"})
    assert [change[0] for change in watcher.pull().changes] == [2]


def test_few_are_woken_at_a_time() -> None:
    store, soon, woken = Store(), list[Callable[[], None]](), list[int]()
    hub = Hub(store, soon.append)
    for number in range(5):
        hub.watch_key(b"k", None, lambda number=number: woken.append(number))  # type: ignore[misc]
    hub.beat()
    counts = []
    while soon:
        soon.pop()()
        counts.append(len(woken))
    assert counts == [2, 4, 5]
