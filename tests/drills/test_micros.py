"""What scripts/profile makes of py-spy's samples."""

from __future__ import annotations

import pytest
from micros import Profile, part_of, shares_of, table

LOOP = ["run (uvloop/__init__.py:48)", "RequestHandler.data_received (aiohttp/web_protocol.py:446)"]
SIEVE = [*LOOP, "_Sieve.feed_data (raftkv/api/connection.py:129)"]
PLAIN = [*SIEVE, "Plain.take (raftkv/api/plain.py:60)"]
TURN = ["run (uvloop/__init__.py:48)", "Driver._turn (raftkv/server/driver.py:200)"]


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        (["run (uvloop/__init__.py:48)"], "event loop"),
        ([], "event loop"),
        (["run (uvloop/__init__.py:48)", "epoll_pwait (libc.so.6)"], "kernel: events"),
        ([*LOOP, "Py_DECREF (object.h:537)"], "aiohttp, else"),
        ([*SIEVE, "cb_on_url (_http_parser.c:1)"], "HTTP parser (aiohttp's, in C)"),
        ([*SIEVE, "StreamReader.feed_eof (aiohttp/streams.py:229)"], "HTTP parser (aiohttp's, in C)"),
        ([*PLAIN, "sre_ucs1_match (libpython3.11.so.1.0)"], "REST: request and answer"),
        ([*PLAIN, "write (libc.so.6)"], "kernel: sockets, out"),
        ([*PLAIN, "Driver.propose (raftkv/server/driver.py:73)"], "driver: the turn"),
        ([*TURN, "Replica.apply (raftkv/replica.py:9)"], "consensus and replica"),
        (
            [*TURN, "Replica.apply (raftkv/replica.py:9)", "Store.put (raftkv/kv/store.py:1)"],
            "machine: apply and read",
        ),
        ([*TURN, "Disk.write (raftkv/storage/disk.py:80)"], "log: encoding, handing to the disk"),
        (
            [
                *TURN,
                "OutgoingLink._write (raftkv/transport/link.py:1)",
                "send_frame (aiohttp/client_ws.py:1)",
            ],
            "peer links: WebSocket frames",
        ),
    ],
)
def test_a_sample_belongs_to_its_innermost_part(stack: list[str], part: str) -> None:
    assert part_of(stack) == part


def test_shares_are_of_the_loop_s_thread() -> None:
    disk = ["Thread.run (threading.py:982)", "Disk._run (raftkv/storage/disk.py:99)"]
    lines = [f"{';'.join(PLAIN)} 3", f"{';'.join(LOOP)};f (x y.py:1) 1", f"{';'.join(disk)} 100"]
    assert shares_of("\n".join(lines)) == {"REST: request and answer": 0.75, "aiohttp, else": 0.25}


def test_the_table_adds_up() -> None:
    one = Profile(1000.0, {"kernel: events": 10.0, "event loop": 2.5}, disk_us=7.5, followers_us=40.0)
    rows = dict(line.strip("| ").split(" | ") for line in table({"PUT": one}).splitlines()[2:])
    assert (rows["kernel: events"], rows["aiohttp, else"]) == ("10.0", "0.0")
    assert (rows["**the leader**"], rows["the followers, together"]) == ("20.0", "40.0")
