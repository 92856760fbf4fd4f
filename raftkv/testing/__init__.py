"""For tests of programs that use raftkv: a real cluster on this machine, and pytest fixtures (``plugin``).

Nodes are processes with real disks and sockets, so a test can kill one as it would die in earnest.
"""

from raftkv.testing.cluster import LocalCluster, LocalNode

__all__ = ["LocalCluster", "LocalNode"]
