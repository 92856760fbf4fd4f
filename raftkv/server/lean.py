"""Importing the server without what only a terminal wants. Must not import the server, nor structlog."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_DRAWS = "rich"


def for_people(log_format: str) -> bool:
    """Whether log lines go to a person: ``log_format`` as in ``config.Config``."""
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


@contextmanager
def lean_imports(log_format: str) -> Iterator[None]:
    """For the server's first import: rich is not there, unless lines go to a person.

    structlog imports rich, a hundred modules, if it is there, and does without it if not. That is a seventh
    of the processor time until a node serves, taken from the nodes that serve beside it.
    """
    if for_people(log_format) or _DRAWS in sys.modules:
        yield
        return
    sys.modules[_DRAWS] = None  # type: ignore[assignment] # the language's way to say: there is none
    try:
        yield
    finally:
        del sys.modules[_DRAWS]
