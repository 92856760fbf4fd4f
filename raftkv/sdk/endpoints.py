"""Where the nodes of a cluster are, and which of them is asked next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit


def parse_endpoint(text: str) -> str:
    """``http://host:port`` of that, or of ``host:port``. Raises ValueError with a message for a person."""
    url = text.strip().removesuffix("/")
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # both are looked at: either may raise
    except ValueError as error:
        raise ValueError(f"{text!r} is no endpoint: {error}") from None
    extra = parts.path or parts.query or parts.fragment or parts.username
    if parts.scheme not in ("http", "https") or not host or extra:
        raise ValueError(f"{text!r} is no endpoint: give http://host:port")
    return url


class Endpoints:
    """Those given, and behind them those that the cluster told of. One is asked until it fails."""

    def __init__(self, given: str | Sequence[str]) -> None:
        texts = given.split(",") if isinstance(given, str) else given
        self._given = list(dict.fromkeys(parse_endpoint(text) for text in texts if text.strip()))
        if not self._given:
            raise ValueError("a client needs at least one endpoint: http://host:port")
        self._all = list(self._given)
        self._current = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self._all)

    @property
    def current(self) -> str:
        return self._all[self._current]

    def failed(self, endpoint: str) -> None:
        """Ask the one after it, unless somebody has moved on already."""
        if self.current == endpoint:
            self._current = (self._current + 1) % len(self._all)

    def learn(self, members: Iterable[str]) -> None:
        """``members``: the URLs of all members now. Those given stay, whatever the members are: a node may
        be reached by another name than the one it advertises.
        """
        current = self.current
        self._all = list(dict.fromkeys([*self._given, *members]))
        self._current = self._all.index(current) if current in self._all else 0
