"""REST over ``ports.Service``. The table of calls is in README.md; errors are RFC 9457 documents."""

from raftkv.api.app import RestServer
from raftkv.api.limits import Limits

__all__ = ["Limits", "RestServer"]
