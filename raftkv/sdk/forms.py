"""How keys, values and durations are written in requests, and read from answers.

Keys are bytes to a node. Here they may be given as text or bytes, and come back as text, as file names do in
Python: bytes that aren't UTF-8 become lone surrogates ("surrogateescape"), and the text names the same key
again. Values come back as bytes.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

Key = str | bytes
Data = str | bytes  # text stands for its UTF-8


def key_bytes(key: Key) -> bytes:
    return key.encode("utf-8", "surrogateescape") if isinstance(key, str) else _plain(key, "a key")


def key_text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")


def data_bytes(data: Data) -> bytes:
    return data.encode() if isinstance(data, str) else _plain(data, "a value")


def _plain(data: object, what: str) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):  # NB: bytes(5) is five NUL bytes
        raise TypeError(
            f"{what} is text or bytes, got {data!r}: write it as text first, by str() or json.dumps()"
        )
    return bytes(data)


def key_path(key: Key) -> str:
    """``/v1/kv/...``: all but RFC 3986's unreserved characters and "/" are percent-encoded."""
    return "/v1/kv/" + quote(key_bytes(key), safe="/")


def name_path(start: str, name: str, *more: str) -> str:
    """``start/NAME/...``, each name as one segment of the path."""
    return "/".join((start, *(quote(each, safe="") for each in (name, *more))))


def field(name: str, data: bytes) -> dict[str, str]:
    """``{name: text}``, or ``{name_base64: ...}`` where the bytes aren't UTF-8."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def read_field(document: Mapping[str, Any], name: str) -> bytes:
    """The inverse; b"" where it is missing."""
    if (encoded := document.get(f"{name}_base64")) is not None:
        return b64decode(encoded)
    return str(document.get(name) or "").encode()


def duration(seconds: float) -> str:
    """``1500ms``. Raises ValueError below a millisecond, and TypeError for what is no number."""
    if not isinstance(seconds, int | float):
        raise TypeError(f"a duration is a number of seconds, got {seconds!r}")
    milliseconds = round(seconds * 1000)
    if milliseconds <= 0:
        raise ValueError(f"a duration must be a millisecond at least, got {seconds} s")
    return f"{milliseconds}ms"
