"""The scenarios of MIT 6.5840's Raft lab (3D) on the core: every server takes a snapshot every few entries
and keeps nothing before it, so who is away for longer than that is sent one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pytest

from raftkv.consensus import Envelope, Ready
from raftkv.consensus.types import Timing
from tests.conformance.lab import Lab
from tests.consensus.harness import Server, Stream

EVERY = 10  # entries
STREAM_MS = 5.0

seeds = pytest.mark.parametrize("seed", range(4))


class SnapshotLab(Lab):
    """A lab whose servers take snapshots. One on its way comes whole, but from the dead or over a cut link;
    on an unreliable network one of ten breaks off.
    """

    def __init__(self, size: int, *, seed: int, reliable: bool = True) -> None:
        self.installed = 0
        self._coming: deque[tuple[float, Stream]] = deque()
        super().__init__(size, seed=seed, reliable=reliable)
        self.on_stream = lambda stream: self._coming.append((self.now_ms + STREAM_MS, stream))

    def _note_applied(self, server: Server, ready: Ready) -> None:
        super()._note_applied(server, ready)
        if ready.installed is not None:
            self.installed += 1
            self._note_snapshot(server)

    def _note_snapshot(self, server: Server) -> None:
        for entry in server.disk.snapshot:
            self.where.setdefault(entry.data, {})[server.node_id] = entry.index

    def restart(self, name: str) -> None:
        super().restart(name)
        self._note_snapshot(self.servers[name])

    def tick(self, name: str) -> None:
        super().tick(name)
        self._take_and_send()

    def receive(self, envelope: Envelope) -> None:
        super().receive(envelope)
        self._take_and_send()

    def _take_and_send(self) -> None:
        for server in self.living:
            if len(server.applied) >= server.disk.boundary.index + EVERY:
                self.snapshot(server.node_id)
        while self._coming and self._coming[0][0] <= self.now_ms:
            stream = self._coming.popleft()[1]
            sender, receiver = stream.envelope.sender, stream.envelope.receiver
            breaks_off = not self.reliable and self.random.random() < 0.1
            is_cut = (sender, receiver) in self.cuts or self.servers[sender].node is None
            self.finish(stream, arrives=not breaks_off and not is_cut)

    def log_lengths(self) -> list[int]:
        logs = [server.node.log for server in self.connected if server.node is not None]
        return [log.last_index - log.boundary.index for log in logs]

    def assert_all_have(self, wanted: Iterable[bytes]) -> None:
        """... the same, and in it what is wanted."""
        applied = {tuple(server.applied) for server in self.living}
        assert len(applied) == 1
        assert {entry.data for entry in applied.pop()} >= set(wanted)


def go_on(lab: SnapshotLab, name: str, servers: int, least: int = EVERY // 2) -> list[bytes]:
    """Some entries, perhaps enough for a snapshot; agreed upon one after the other."""
    batches = [b"%s.%d" % (name.encode(), each) for each in range(least + lab.random.randrange(EVERY))]
    for each in batches:
        lab.one(each, servers)
    return batches


@pytest.mark.parametrize(
    ("away", "reliable"),
    [
        pytest.param("nobody", True, id="TestSnapshotBasic3D"),
        pytest.param("cut off", True, id="TestSnapshotInstall3D"),
        pytest.param("cut off", False, id="TestSnapshotInstallUnreliable3D"),
        pytest.param("crashed", True, id="TestSnapshotInstallCrash3D"),
        pytest.param("crashed", False, id="TestSnapshotInstallUnCrash3D"),
    ],
)
@seeds
def test_everybody_takes_snapshots(away: str, reliable: bool, seed: int) -> None:
    """A follower is away, or every third time the leader; logs stay short; who comes back has all."""
    lab = SnapshotLab(3, seed=seed, reliable=reliable)
    wanted = [b"first"]
    lab.one(b"first", 3)
    for number in range(12):
        leader = lab.leader()
        victim = leader if number % 3 == 1 else lab.others(leader)[0]
        if away == "cut off":
            lab.disconnect(victim)
        if away == "crashed":
            lab.crash(victim)
        servers = 3 if away == "nobody" else 2
        wanted += go_on(lab, f"{number}", servers, least=EVERY // 2 if number % 2 else EVERY + 2)
        assert max(lab.log_lengths()) < 2 * EVERY
        if away == "cut off":
            lab.connect()
        if away == "crashed":
            lab.restart(victim)
        wanted.append(b"%d, all" % number)
        lab.one(wanted[-1], 3)
    lab.assert_all_have(wanted)
    assert all(server.disk.boundary.index > 100 for server in lab.living)
    assert lab.installed >= (0 if away == "nobody" else 4)


@seeds
def test_all_crash(seed: int) -> None:
    """TestSnapshotAllCrash3D: nobody forgets anything, and no index is given again."""
    lab = SnapshotLab(3, seed=seed)
    wanted = [b"first"]
    lab.one(b"first", 3)
    for number in range(5):
        wanted += go_on(lab, f"{number}", 3)
        before = lab.one(b"%d, before" % number, 3)
        for name in lab.names:
            lab.crash(name)
        for name in lab.names:
            lab.restart(name)
        assert lab.one(b"%d, after" % number, 3) > before
    lab.assert_all_have(wanted)


@seeds
def test_what_is_written_after_a_restart_leaves_the_snapshot(seed: int) -> None:
    """TestSnapshotInit3D: the second restart begins with the snapshot that was taken before the first."""
    lab = SnapshotLab(3, seed=seed)
    wanted = [b"%d" % number for number in range(EVERY)]
    for each in wanted:
        lab.one(each, 3)
    boundaries = {server.disk.boundary for server in lab.living}
    for number in range(2):
        for name in lab.names:
            lab.crash(name)
        for name in lab.names:
            lab.restart(name)
        assert {server.disk.boundary for server in lab.living} == boundaries
        assert all(server.node and server.node.log.boundary in boundaries for server in lab.living)
        wanted.append(b"after %d" % number)
        lab.one(wanted[-1], 3)
    lab.assert_all_have(wanted)
    assert len(boundaries) == 1


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_a_write_waits_for_no_heartbeat(through: str) -> None:
    """TestSpeed4C: as without snapshots, in virtual time, in which taking one costs nothing."""
    lab = SnapshotLab(3, seed=0)
    leader = lab.leader()
    lab.run(100)
    name = leader if through == "leader" else lab.others(leader)[0]
    began_ms = lab.now_ms
    for number in range(200):
        data = b"%d" % number
        assert lab.propose(name, data)
        assert lab.run(1000, lambda data=data: name in lab.where.get(data, {}))  # type: ignore[misc]
    assert (lab.now_ms - began_ms) / 200 < Timing().heartbeat_ms / 3
    assert all(server.disk.boundary.index >= 190 for server in lab.living)
