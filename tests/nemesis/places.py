"""Where nodes live: a fixed number of places, one more than the cluster has nodes.

A place has its ports, its end of the network (``links``), and perhaps a disk of its own. A node keeps its
place for as long as it is a member; who comes later, under another id, may get it. So a cut is between
places, and whatever cuts needn't know who the members are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raftkv.testing.cluster import free_ports


@dataclass(slots=True, eq=False)
class Place:
    """The last four are what its network makes of it."""

    name: str
    port: int
    peer_port: int
    disk: Path  # the data directories of those who live here are made in it
    host: str = "127.0.0.1"
    address: str = ""  # where the other nodes find who lives here, HOST:PORT
    wrapper: tuple[str, ...] = ()  # goes before the command of who lives here
    launcher: tuple[str, ...] = ()  # goes before its module


def make_places(directory: Path, count: int) -> list[Place]:
    """p1, p2 ..., on free ports, all with their disks in ``directory``."""
    ports = free_ports(2 * count)
    return [Place(f"p{i + 1}", ports[i], ports[count + i], directory) for i in range(count)]
