"""Logging: structlog, JSON lines for machines, colour on a terminal. Requests are logged at debug only."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from raftkv.server.lean import for_people


def configure(level: str, log_format: str, node_id: str) -> None:
    """Set logging up for this process: ``level`` and ``log_format`` as in ``config.Config``. Lines go to
    stderr.
    """
    console = for_people(log_format)
    renderer: Processor = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()

    def name_node(_logger: Any, _method: str, event: EventDict) -> EventDict:
        # NB: not by a context variable, which the disk's thread would not see.
        event.setdefault("node", node_id)
        return event

    first: list[Processor] = [
        name_node,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console),
    ]
    last: list[Processor] = [] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*first, *last, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line: kill -9 must not leave half a line, for the next life to write on.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries say through the standard logging: only what went wrong, in the same place and form.
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*first, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
