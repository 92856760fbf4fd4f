"""Stands in for ``raftkv serve`` where the way it is started and stopped is tested: a stub node, n1 leads.

``STUB_DIES=n2`` makes that node end at once with exit code 74, ``STUB_DEAF=n3`` makes that one ignore
SIGTERM, ``STUB_LEADERLESS`` makes all of them followers.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from http.server import ThreadingHTTPServer

from tests.cli.stub import Stub, handler_of
from tests.cli.test_observation import report


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    for name in ("id", "data-dir", "listen", "peer-listen", "cluster", "cluster-name", "advertise"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    print(f"{options.id} starts in {options.data_dir}", file=sys.stderr, flush=True)
    if os.environ.get("STUB_DIES") == options.id:
        print("the disk is full: free some space", file=sys.stderr, flush=True)
        sys.exit(74)
    stopped = threading.Event()
    signal.signal(
        signal.SIGTERM, lambda *_: None if os.environ.get("STUB_DEAF") == options.id else stopped.set()
    )
    role = "leader" if options.id == "n1" and "STUB_LEADERLESS" not in os.environ else "follower"
    host, _, port = options.listen.rpartition(":")
    stub = Stub(options.id, status=report(options.id, role, 1, "n1"))
    server = ThreadingHTTPServer((host, int(port)), handler_of(stub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stopped.wait()
    print(f"{options.id} stops", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
