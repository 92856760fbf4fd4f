"""A watch over a blocking socket: its answer piece by piece, as the server wrote it."""

from __future__ import annotations

import json
import socket
from typing import Any

from raftkv.kv.commands import encode_compact
from tests.api.client import Headers, request_bytes
from tests.api.node import DEADLINE_S, LoopThread, RestNode


class Stream:
    """One watch, as its bytes come; each chunk of the answer is what the server wrote at once."""

    def __init__(self, node: RestNode, query: str = "", headers: Headers = ()) -> None:
        self._socket = socket.create_connection(("127.0.0.1", node.port), timeout=DEADLINE_S)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(request_bytes("GET", f"/v1/watch{query}", headers))
        self.status = int(self._file.readline().split(b" ")[1])
        self.headers: dict[str, str] = {}
        while (line := self._file.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value

    def chunk(self) -> bytes:
        """What the server wrote next, in one piece; b"" at the end."""
        size = int(self._file.readline(), 16)
        data = self._file.read(size)
        assert self._file.read(2) == b"\r\n"
        return data

    def events(self) -> list[dict[str, Any]]:
        return [parse(text) for text in self.chunk().decode().split("\n\n")[:-1]]

    def event(self) -> dict[str, Any]:
        """The next one, which came alone."""
        (event,) = self.events()
        return event

    def is_closed(self) -> bool:
        return self._file.peek(1) == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def parse(text: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in text.split("\n"))
    return {"event": fields["event"], "id": fields.get("id"), **json.loads(fields["data"])}


def compact(node: RestNode, loop_thread: LoopThread, revision: int) -> None:
    loop_thread.run(node.service.propose(encode_compact(revision), 1000.0))
