"""The whole cluster in one thread: real replicas, machine and WAL over virtual time, network and disks.

A seed and a commit reproduce a run byte for byte: all chance comes from one ``random.Random(seed)``, all time
from ``World``, and nothing is ever iterated in an order that differs from process to process. ``play`` runs
one seed; ``raftkv simulate`` many.
"""

from raftkv.sim.run import Report, play

__all__ = ["Report", "play"]
