"""A node for the command line's tests: speaks the REST contract over a real socket, and fails as it is told.

Not a cluster: every stub has a dict of its own unless they are given the same one.
"""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

CUT = "cut"  # read the request, then close without an answer
CUT_LATE = "cut late"  # do what is asked, then close without an answer
HALF = "half"  # close in the middle of the answer
GARBAGE = "garbage"  # answer something that isn't HTTP
HANG = "hang"  # never answer
HASTY = "hasty"  # answer 413 without reading the body, and close


@dataclass
class Stub:
    """``fail``: None, one of the words above, or (status, problem document) to answer with."""

    node: str = "n1"
    values: dict[bytes, tuple[bytes, int, int]] = field(default_factory=dict)  # value, revision, version
    fail: str | tuple[int, dict[str, Any] | bytes] | None = None
    status: dict[str, Any] = field(default_factory=dict)
    ready: bool = True
    members: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # "PUT /v1/kv/a?timeout=..." in order
    bodies: list[dict[str, Any]] = field(default_factory=list)  # of requests to /v1/cluster/...
    snapshot: bytes = b""
    revision: int = 0
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path in ("/livez", "/readyz"):
            good = path == "/livez" or self.ready
            return (200, {"status": "ok"}) if good else (503, {"status": "no quorum"})
        if path == "/v1/status":
            return 200, self.status
        if path == "/v1/cluster":
            return 200, {"members": self.members}
        if path == "/v1/cluster/leader":
            self.bodies.append(json.loads(body))
            return 200, {"leader": self.bodies[-1].get("id", "n3"), "term": 7}
        if path.startswith("/v1/cluster/members"):
            self.bodies += [json.loads(body)] if body else []
            return 200, {"members": self.members} | ({} if method == "GET" else {"index": 8})
        if path == "/v1/snapshot":
            return 200, self.snapshot
        if path == "/v1/kv":
            return self._page(query)
        return self._key(method, unquote_to_bytes(path.removeprefix("/v1/kv/")), query, body)

    def _key(self, method: str, key: bytes, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        before = self.values.get(key)
        revision = before[1] if before else 0
        wanted = 0 if query.get("if_absent") == "true" else int(query.get("if_revision", revision))
        if wanted != revision:
            return problem(412, "condition_failed", f"the key is at revision {revision}", "not_applied")
        match method:
            case "PUT":
                self.revision += 1
                version = before[2] + 1 if before else 1
                self.values[key] = (body, self.revision, version)
                done = {"key": key.decode(), "revision": self.revision, "version": version}
                return (200 if before else 201), {**done, "created": before is None}
            case "DELETE":
                self.values.pop(key, None)
                return 200, {"deleted": int(before is not None), "revision": self.revision}
            case _ if before is None:
                return problem(404, "key_not_found", "there is no such key", "not_applied")
            case _:
                return 200, self._envelope(key) if query.get("format") == "json" else before[0]

    def _page(self, query: dict[str, str]) -> tuple[int, Any]:
        prefix = query.get("prefix", "").encode("latin-1")
        keys = sorted(key for key in self.values if key.startswith(prefix))
        if query.get("reverse") == "true":
            keys.reverse()
        begin, limit = int(query.get("cursor", "0")), int(query["limit"])
        shown, more = keys[begin : begin + limit], len(keys) > begin + limit
        items = [self._envelope(key, keys_only=query.get("keys_only") == "true") for key in shown]
        return 200, {
            "items": items,
            "cursor": str(begin + limit) if more else None,
            "revision": self.revision,
        }

    def _envelope(self, key: bytes, *, keys_only: bool = False) -> dict[str, Any]:
        value, revision, version = self.values[key]
        found = _named("key", key)
        return (
            found
            if keys_only
            else {**found, **_named("value", value), "mod_revision": revision, "version": version}
        )


def _named(name: str, raw: bytes) -> dict[str, Any]:
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(raw).decode()}


def problem(status: int, code: str, detail: str, outcome: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return status, {
        "status": status,
        "code": code,
        "title": code,
        "detail": detail,
        "outcome": outcome,
        **more,
    }


class _Handler(BaseHTTPRequestHandler):
    stub: Stub

    def _handle(self) -> None:
        stub, length = self.stub, int(self.headers.get("Content-Length", "0"))
        if stub.fail == HASTY:
            self._send(*problem(413, "too_large", "at most 1 MiB", "not_applied"))
            return
        body = self.rfile.read(length)
        stub.asked.append(f"{self.command} {self.path}")
        path, _, raw_query = self.path.partition("?")
        query = dict(parse_qsl(raw_query, keep_blank_values=True, encoding="latin-1"))
        match stub.fail:
            case "cut":
                return
            case "hang":
                stub.released.wait(30)
                return
            case "garbage":
                self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
                return
            case (int() as status, answer):
                self._send(status, answer)
                return
        status, answer = stub.answer(self.command, path, query, body)
        if stub.fail != CUT_LATE:
            self._send(status, answer)

    do_GET = do_PUT = do_POST = do_DELETE = _handle

    def _send(self, status: int, answer: Any) -> None:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/problem+json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw) + (10 if self.stub.fail == HALF else 0)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def handler_of(stub: Stub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"stub": stub})


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing the server waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that gave up is what some tests are about


@contextmanager
def running(*stubs: Stub) -> Iterator[tuple[Stub, ...]]:
    """The stubs, each at a port of its own."""
    servers = []
    try:
        for stub in stubs:
            server = _Server(("127.0.0.1", 0), handler_of(stub))
            servers.append((server, stub))
            stub.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield stubs
    finally:
        for server, stub in servers:
            stub.released.set()
            server.shutdown()
            server.server_close()


def dead_url() -> str:
    """An endpoint that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
