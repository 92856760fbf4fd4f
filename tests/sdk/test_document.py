"""The examples of docs/clients.md, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raftkv import Client
from raftkv.testing import LocalCluster

pytestmark = pytest.mark.cluster

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"


def test_the_examples_run(raftkv_cluster: LocalCluster, raftkv_client: Client) -> None:
    namespace: dict[str, Any] = {"endpoints": raftkv_cluster.endpoints}
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 8
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"docs/clients.md, example {number}", "exec"), namespace)
    namespace["test_my_program_survives_the_leader"](raftkv_cluster, raftkv_client)
