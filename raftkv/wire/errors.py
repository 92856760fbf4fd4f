"""The one thing that can go wrong here."""

from __future__ import annotations


class WireError(Exception):
    """Bytes that aren't a frame of this protocol, or a value that doesn't fit in one. In one line."""
