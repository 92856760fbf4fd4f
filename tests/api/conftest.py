"""One background event loop for all, one server for each test, and a check that nothing went wrong unseen."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.api.client import Connection
from tests.api.node import LoopThread, RestNode


@pytest.fixture(scope="package", autouse=True)
def _no_lingering() -> Iterator[None]:
    """A server that waits for the rest of a refused body does so briefly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raftkv.api.app._LINGER_S", 0.1)
        yield


@pytest.fixture(scope="package")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def node(loop_thread: LoopThread) -> Iterator[RestNode]:
    node = RestNode(loop_thread)
    yield node
    node.close()


@pytest.fixture
def client(node: RestNode) -> Iterator[Connection]:
    with Connection(node) as connection:
        yield connection


@pytest.fixture
def log_lines() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the server logged since the test began."""
    with capture_logs() as lines:
        yield lines
