"""The network between the nodes, cut by ordered pairs: by relays in user space, or, as root, by iptables
between network namespaces.

A pair may be cut by several faults at once, and is whole again when all of them are over. Cutting (a, b)
means: what a sends on the connections that it opened to b is lost (relays), or every packet from a to b is
(namespaces).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from raftkv.testing.cluster import free_ports
from tests.cluster.wires import Wire
from tests.nemesis.places import Place
from tests.nemesis.plan import Ability

DROP = "DROP"
RESET = "REJECT --reject-with tcp-reset"

Pair = tuple[Place, Place]
"""(who speaks, who doesn't hear it)"""


def both_ways(ones: Iterable[Place], others: Iterable[Place]) -> list[Pair]:
    across = [(one, other) for one in ones for other in others if one is not other]
    return [*across, *((other, one) for one, other in across)]


class Links(Protocol):
    """``abilities``: what this network can do beyond cutting."""

    abilities: frozenset[Ability]

    def cut(self, pairs: Sequence[Pair], *, resets: bool) -> None:
        """``resets``: both ends are told, by broken and refused connections; else they see silence."""
        ...

    def mend(self, pairs: Sequence[Pair]) -> None:
        """Undo one ``cut`` of the same pairs."""
        ...

    def lag(self, pairs: Sequence[Pair], lag_s: float) -> None:
        """Hold what passes for so long; 0: no longer."""
        ...


class Relays:
    """Every place is found at its gate, a relay; every ordered pair has its wire (``tests.cluster.wires``).

    The members' list has one address of a node for all others, so a gate must see who comes: nodes connect
    from addresses of their own (``speaker``).
    """

    abilities = frozenset({Ability.LAG})

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = list(places)
        self._speakers = {f"127.0.7.{number}": place for number, place in enumerate(places, 1)}
        self._wires = {(a.name, b.name): Wire(a, b) for a in places for b in places if a is not b}
        self._cuts: Counter[tuple[str, str]] = Counter()
        self._gates: list[asyncio.Server] = []

    async def open(self) -> None:
        """And tell the places their addresses."""
        ports = free_ports(len(self._places))
        for (speaker, place), port in zip(self._speakers.items(), ports, strict=True):
            self._gates.append(await asyncio.start_server(partial(self._enter, place), place.host, port))
            place.address = f"{place.host}:{port}"
            place.launcher = ("tests.nemesis.speaker", speaker)

    async def close(self) -> None:
        for gate in self._gates:
            gate.close()
        for wire in self._wires.values():
            await wire.close()

    async def _enter(self, target: Place, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = self._speakers.get((writer.get_extra_info("peername") or ("",))[0])
        if source is None or source is target:  # NB: a place's former address may be remembered in the place
            writer.transport.abort()
            return
        await self._wires[source.name, target.name].carry(reader, writer)

    def cut(self, pairs: Sequence[Pair], *, resets: bool) -> None:
        for source, target in pairs:
            self._cuts[source.name, target.name] += 1
            wire = self._wires[source.name, target.name]
            if resets:
                wire.tear(towards=source)
                wire.tear(towards=target)
            else:
                wire.silence()

    def mend(self, pairs: Sequence[Pair]) -> None:
        for source, target in pairs:
            name = source.name, target.name
            self._cuts[name] -= 1
            if not self._cuts[name]:
                self._wires[name].heal()

    def lag(self, pairs: Sequence[Pair], lag_s: float) -> None:
        for source, target in pairs:
            self._wires[source.name, target.name].lag_s = lag_s


@asynccontextmanager
async def relays(places: Sequence[Place]) -> AsyncIterator[Relays]:
    network = Relays(places)
    try:
        await network.open()
        yield network
    finally:
        await network.close()


class Namespaces:
    """Every place in its own network namespace, with its own address, on one bridge.

    The bridge has a namespace too: in the machine's own, packets that cross a bridge pass the machine's rules
    of forwarding, and a container engine's rules drop what isn't its own.
    """

    abilities: frozenset[Ability] = frozenset()

    def __init__(self, mark: str, places: Sequence[Place]) -> None:
        """``mark``: a few characters that begin every name it makes in the system."""
        self._mark = mark
        self._places = list(places)
        # A network of this machine's own: 10.x.y.0/24, x and y by the process, so that two runs don't meet.
        self._network = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"

    @property
    def _hub(self) -> str:
        return f"{self._mark}hub"

    def _name(self, place: Place) -> str:
        return f"{self._mark}{place.name}"

    def make(self) -> None:
        """And tell the places their addresses. Raises CalledProcessError; ``remove`` is due all the same."""
        hub, ours = self._hub, f"{self._mark}us"
        _run(f"ip netns add {hub}")
        _run(f"ip -n {hub} link add bridge type bridge")
        _run(f"ip -n {hub} link set bridge up")
        _run(f"ip link add {ours} type veth peer name us netns {hub}")
        _run(f"ip -n {hub} link set us master bridge up")
        _run(f"ip addr add {self._network}.1/24 dev {ours}")
        _run(f"ip link set {ours} up")
        for number, place in enumerate(self._places):
            name = self._name(place)
            place.host = f"{self._network}.{10 + number}"
            _run(f"ip netns add {name}")
            _run(f"ip -n {hub} link add {place.name} type veth peer name eth0 netns {name}")
            _run(f"ip -n {hub} link set {place.name} master bridge up")
            _run(f"ip -n {name} addr add {place.host}/24 dev eth0")
            _run(f"ip -n {name} link set eth0 up")
            _run(f"ip -n {name} link set lo up")
            place.address = f"{place.host}:{place.peer_port}"
            place.wrapper = ("ip", "netns", "exec", name)

    def remove(self) -> None:
        for name in (*map(self._name, self._places), self._hub):
            _run(f"ip netns del {name}", check=False)

    def cut(self, pairs: Sequence[Pair], *, resets: bool) -> None:
        for source, target in pairs:
            _run(f"{self._iptables(source, target, '-I')} {RESET if resets else DROP}")

    def mend(self, pairs: Sequence[Pair]) -> None:
        """NB: whichever kind it was: the rules of a pair are one like the other."""
        for source, target in pairs:
            for verdict in (DROP, RESET):
                if not _run(f"{self._iptables(source, target, '-D')} {verdict}", check=False):
                    break

    def _iptables(self, source: Place, target: Place, action: str) -> str:
        return f"ip netns exec {self._name(target)} iptables -w {action} INPUT -s {source.host} -p tcp -j"

    def lag(self, pairs: Sequence[Pair], lag_s: float) -> None:
        raise NotImplementedError("namespaces have no slow links: the plan must not ask")


@asynccontextmanager
async def namespaces(mark: str, places: Sequence[Place]) -> AsyncIterator[Namespaces]:
    network = Namespaces(mark, places)
    try:
        network.make()
        yield network
    finally:
        network.remove()


def why_no_namespaces() -> str | None:
    """Seen by making one with a rule in it."""
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            return f"there is no {tool} command (apt install iproute2 iptables)"
    name = f"raftkv{os.getpid()}"
    if _run(f"ip netns add {name}", check=False):
        return "network namespaces need root"
    try:
        for verdict in (DROP, RESET):
            if _run(f"ip netns exec {name} iptables -A INPUT -s 10.0.0.1 -p tcp -j {verdict}", check=False):
                return "iptables can't make rules in a network namespace here"
    finally:
        _run(f"ip netns del {name}", check=False)
    return None


def _run(command: str, *, check: bool = True) -> int:
    done = subprocess.run(command.split(), capture_output=True, check=False)
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.returncode
