"""Importing the server for what a node costs until it serves: a node that starts takes this time from those
that serve beside it. Must not import the server, nor structlog, nor aiohttp.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_DRAWS = "rich"
_CERTIFICATES = "SSL_CERT_FILE"


def for_people(log_format: str) -> bool:
    """Whether log lines go to a person: ``log_format`` as in ``config.Config``."""
    return log_format == "console" or (log_format == "auto" and sys.stderr.isatty())


@contextmanager
def lean_imports(log_format: str, join: Sequence[str]) -> Iterator[None]:
    """For the server's first import: without what this node has no use for. Afterwards all is as it was, but
    that the garbage collector never looks at what was imported. ``log_format``, ``join``: as in ``Config``.

    - structlog imports rich, a hundred modules, if it is there, and does without it if not. Only a terminal
      wants it.
    - aiohttp reads the system's certificates, twice. Only --join may name an https address.
    - The collector would look for garbage in what stays.
    """
    if "structlog" in sys.modules or "aiohttp" in sys.modules:
        yield
        return
    certificates = os.environ.get(_CERTIFICATES)
    if not for_people(log_format):
        # What the import system knows as "there is none".
        sys.modules[_DRAWS] = None  # type: ignore[assignment]
    if not any(url.startswith("https:") for url in join):
        os.environ[_CERTIFICATES] = os.devnull
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if sys.modules.get(_DRAWS, sys) is None:
            del sys.modules[_DRAWS]
        os.environ.pop(_CERTIFICATES, None)
        if certificates is not None:
            os.environ[_CERTIFICATES] = certificates
