"""pytest fixtures for users' own tests: ``raftkv_cluster`` (one for the whole run), ``raftkv_endpoints`` and
``raftkv_client`` (each test finds an empty store).

pytest loads this wherever raftkv is installed: it must import nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raftkv.sdk.sync import Client
    from raftkv.testing.cluster import LocalCluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("raftkv_nodes", "How many nodes the cluster of the raftkv fixtures has.", default="3")


@pytest.fixture(scope="session")
def raftkv_cluster(pytestconfig: pytest.Config) -> Iterator[LocalCluster]:
    """A running cluster of real processes, for the whole run. Who kills a node starts it again."""
    from raftkv.testing.cluster import LocalCluster  # noqa: PLC0415 (only who asks for it pays for it)

    with LocalCluster(int(pytestconfig.getini("raftkv_nodes"))) as cluster:
        yield cluster


@pytest.fixture
def raftkv_endpoints(raftkv_cluster: LocalCluster) -> str:
    """Of that cluster, emptied, as clients take them."""
    raftkv_cluster.clear()
    return raftkv_cluster.endpoints


@pytest.fixture
def raftkv_client(raftkv_endpoints: str) -> Iterator[Client]:
    """A client of that cluster, emptied."""
    from raftkv.sdk.sync import Client  # noqa: PLC0415 (only who asks for it pays for it)

    with Client(raftkv_endpoints) as client:
        yield client
