"""How scripts/bench --against asks the stores without wrk."""

from __future__ import annotations

from typing import cast

import pytest
from harness import Cluster
from stores import Store, put_request

RAFTKV = (
    b"PUT /v1/kv/key00007 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Length: 2\r\n\r\nxx"
)
ETCD = (
    b"POST /v3/kv/put HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n"
    b'Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{"key": "a2V5MDAwMDc=", "value": "eHg="}'
)


@pytest.mark.parametrize(("kind", "request_bytes"), [("raftkv", RAFTKV), ("etcd", ETCD)])
def test_a_whole_request(kind: str, request_bytes: bytes) -> None:
    store = Store(kind, "1", ("127.0.0.1:8001", "127.0.0.1:8002"), (), 1, cast("Cluster", None))
    assert put_request(store, 7, b"xx") == request_bytes
