"""How long the fuzzers look.

By default each test tries a few hundred inputs, the same ones in every run. ``RAFTKV_FUZZ_TIMES=50`` tries
fifty times as many, new ones in every run; what it finds, hypothesis prints as a blob to reproduce it with.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("RAFTKV_FUZZ_TIMES", "1"))


def budget(examples: int) -> settings:
    """Settings for a test that by default tries ``examples`` inputs."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,
            HealthCheck.filter_too_much,
        ],
    )
