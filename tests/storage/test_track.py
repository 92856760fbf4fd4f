"""What the log knows of itself while it is written is what recovery makes of the same records."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.consensus.types import Entry, Index, SnapshotMeta
from raftkv.storage.recovery import GroupReplay
from raftkv.storage.track import Track
from tests.storage.samples import entry, position

# Mostly next to the end, of a few terms: runs, overwrites, boundaries that just fit or just don't.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put"] * 6 + ["boundary", "reopen", "settle"]), st.integers(-4, 3), st.integers(1, 3)
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(start=st.sampled_from([position(0, 0), position(5), position(5, 3)]), steps=STEPS)
def test_track_and_replay_agree(start: SnapshotMeta, steps: list[tuple[str, int, int]]) -> None:
    track, replay = Track(start), GroupReplay(boundary=start)
    for step, distance, term in steps:
        index = max(0, replay.last_index + distance)
        if step == "put":
            one: Entry = entry(index, term=term)
            assert track.put(one) == replay.put(one)
        elif step == "boundary":
            boundary = replace(position(index, term), time_ms=7)
            assert track.begin_after(boundary) == replay.begin_after(boundary)
        elif step == "settle":
            track.settle(Index(index))
            # Recovery doesn't know what was final, but nothing that wasn't is written either.
            replay.floor = max(replay.floor, min(Index(index), replay.last_index))
        else:
            track = Track(replay.boundary, replay.entries, replay.floor)
        assert track.last == replay.last
        for at in range(max(replay.boundary.index, replay.floor), replay.last_index + 3):
            assert track.term_at(Index(at)) == replay.term_at(Index(at)), at
