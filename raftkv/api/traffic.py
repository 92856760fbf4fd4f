"""What goes through a node's REST API: how many requests are under way, how long each took, which failed."""

from __future__ import annotations

from time import perf_counter

import structlog

from raftkv.api.answer import Answer
from raftkv.api.problem import problem
from raftkv.errors import Outcome, RaftkvError
from raftkv.tallies import Tallies

logger = structlog.get_logger(__name__)

KEY_PATH = "/v1/kv/"
KEY_ROUTE = "/v1/kv/{key}"


class Traffic:
    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._log = logger.bind()  # a proxy would be asked for each request
        self.is_draining = False  # each answer is the last on its connection
        self.begun = 0  # requests
        self.ended = 0

    def timed(self, method: str, route: str, began_s: float) -> None:
        """A request was answered in one piece. ``route``: what it is counted as; ``began_s``: by
        ``perf_counter``.
        """
        self._tallies.requests[method, route].observe(perf_counter() - began_s)

    def log(self, method: str, path: str, status: int) -> None:
        self._log.debug("request", method=method, path=path, status=status)

    def failed(self, error: Exception, method: str, path: str) -> Answer:
        """What to answer a request that raised ``error``. To be called where that is handled."""
        if isinstance(error, RaftkvError):
            self._tallies.errors[error.code] += 1
            return problem(error)
        logger.exception("a request failed", method=method, path=path)
        detail = "the server made a mistake; its log has the details"
        return problem(RaftkvError(detail, outcome=Outcome.UNKNOWN))
