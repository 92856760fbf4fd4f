"""What scripts/failover does to a leader, and how that is undone; the network in which it can be cut off.

A cut node is in a network namespace of its own, as all of its cluster are, and packets between it and the
others are dropped by iptables there: nobody is told by a reset. Clients, outside, reach every node. For root,
on Linux.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import NodeProcess, Seat

from tests.nemesis.links import Namespaces
from tests.nemesis.places import Place, make_places

EVENTS: Mapping[str, str] = {
    "kill": "kill -9",
    "term": "SIGTERM",
    "stop": "SIGSTOP",
    "partition": "silent partition",
}
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


class Network:
    """Seats for the nodes of some clusters, and cuts between them."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.seats = [Seat(place.host, place.wrapper) for place in places]

    def cut(self, one: NodeProcess, others: Sequence[NodeProcess]) -> None:
        """At once: who is cut off a moment before the other has less of the log, and stands in vain."""
        hosts = [self._seat(other).host for other in others]
        rules = [f"-A INPUT -s {host} -j DROP\n-A OUTPUT -d {host} -j DROP\n" for host in hosts]
        self._run(one, "iptables-restore --noflush", f"*filter\n{''.join(rules)}COMMIT\n")

    def mend(self, one: NodeProcess) -> None:
        self._run(one, "iptables --flush", "")

    def _run(self, node: NodeProcess, command: str, said: str) -> None:
        """Where the node lives."""
        wrapper = self._seat(node).wrapper
        subprocess.run([*wrapper, *command.split()], input=said, text=True, capture_output=True, check=True)

    def _seat(self, node: NodeProcess) -> Seat:
        host = node.url.removeprefix("http://").partition(":")[0]
        return next(seat for seat in self.seats if seat.host == host)


@contextmanager
def running_network(seats: int) -> Iterator[Network]:
    """See ``why_no_namespaces`` before."""
    places = make_places(Path(), seats)
    namespaces = Namespaces(f"fo{os.getpid()}", places)
    try:
        namespaces.make()
        yield Network(places)
    finally:
        namespaces.remove()


async def strike(
    event: str, leader: NodeProcess, others: Sequence[NodeProcess], network: Network | None
) -> None:
    """When this returns it has happened. A signal takes no time, a partition that of a command."""
    if event in _SIGNALS:
        leader.send(_SIGNALS[event])
    elif network is not None:
        await asyncio.to_thread(network.cut, leader, others)


async def heal(event: str, leader: NodeProcess, network: Network | None) -> None:
    """When this returns the old leader is there again, though perhaps not caught up."""
    if event == "stop":
        leader.send(signal.SIGCONT)
    elif event in _SIGNALS:
        await asyncio.to_thread(leader.wait)
        leader.start()
    elif network is not None:
        await asyncio.to_thread(network.mend, leader)
