"""The limits that handlers keep, apart from them so that neither imports the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests; see the fields of the same names in ``config.Config``."""

    max_key_bytes: int
    max_value_bytes: int
    max_request_bytes: int
    request_timeout_ms: float
    max_request_timeout_ms: float
