"""Changes as they happen, for as long as one wants: goes on at another endpoint by itself, where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from typing import Any

from raftkv.client.errors import NoQuorum, Unreachable
from raftkv.client.exchange import NoReply, Request
from raftkv.client.failover import Cluster

WATCH = "/v1/watch"
STALL_S = 40.0  # a node that watches for us says every 15 s that it lives
PAUSE_S = 0.2  # before all endpoints are asked anew

Query = tuple[tuple[str, str | bytes], ...]


def _nobody(reason: str) -> None:
    pass


def watch(
    cluster: Cluster,
    query: Query,
    *,
    path: str = WATCH,
    patience_s: float,
    on_moved: Callable[[str], None] = _nobody,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[dict[str, Any], None, None]:
    """The events of ``GET /v1/watch?query``, as its lines have them, in order and each once, whatever becomes
    of single nodes; the last of a stream that can't go on at all is ``compacted``. Of another ``path``, whose
    events are states without ids: the state now, and each that follows, again the state now from a new node.

    ``on_moved`` is told why another endpoint is asked. Raises ``Refused``, and ``NoQuorum`` or
    ``Unreachable`` when no endpoint has taken it for ``patience_s``.
    """
    after: str | None = None
    endpoints = cluster.endpoints
    while True:
        download = None
        since_s = clock()
        while download is None:
            headers = [("Accept", "application/x-ndjson")]
            if after is not None:
                headers.append(("Last-Event-ID", after))
            try:
                asked = Cluster(endpoints, cluster.timeout_s)
                request = Request("GET", path, query, headers=tuple(headers))
                download = asked.download(request, STALL_S, peeks=False)
            except (NoQuorum, Unreachable):
                if clock() - since_s >= patience_s:
                    raise
                sleep(PAUSE_S)
        moved = "the connection ended"
        try:
            while line := download.line():
                event = json.loads(line)
                after = event.get("id", after)
                yield event
                if event["event"] == "compacted":
                    return
                moved = event.get("end", moved)
        except NoReply as error:
            moved = str(error)
        finally:
            download.close()
        on_moved(f"{download.endpoint}: {moved}")
        # The others first: that one is dead, or stops, or was too slow for us.
        at = endpoints.index(download.endpoint) + 1
        endpoints = endpoints[at:] + endpoints[:at]
