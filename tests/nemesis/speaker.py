"""Runs a node whose links come from an address of its own.

``python -m tests.nemesis.speaker HOST MODULE ARGUMENT...``. All nodes on one machine would connect from
127.0.0.1; so a relay sees who does. Nothing else of the node is touched.
"""

from __future__ import annotations

import runpy
import sys
from functools import partial

import aiohttp

if __name__ == "__main__":
    host = sys.argv[1]
    del sys.argv[:2]
    aiohttp.TCPConnector = partial(aiohttp.TCPConnector, local_addr=(host, 0))  # type: ignore[misc, assignment]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
