"""``/v1/elections/{name}``: campaign, proclaim, resign, see who leads. A lock whose holder has something to
say.
"""

from __future__ import annotations

from aiohttp import web

from raftkv.api.fields import document, lease_id, value_of
from raftkv.api.limits import Limits
from raftkv.api.locks import QueueHandlers
from raftkv.errors import BadRequest
from raftkv.kv.machine import KvMachine
from raftkv.kv.places import ELECTION, Queue
from raftkv.ports import Service

PATH = "/v1/elections"


class ElectionsHandlers(QueueHandlers):
    kind, what, holder = ELECTION, "election", "leader"

    def __init__(self, service: Service, machine: KvMachine, limits: Limits) -> None:
        super().__init__(service, machine, limits)
        self._methods["PUT"] = self.proclaim

    async def proclaim(self, request: web.BaseRequest, queue: Queue) -> web.StreamResponse:
        """``{"value": ...}`` of who leads with ``?lease=``."""
        params, timeout = self._params(request, "lease")
        if "lease" not in params:
            raise BadRequest("give ?lease=, which it leads with")
        value = value_of(await document(request, timeout, ("value", "value_base64")))
        lease = lease_id(params["lease"])
        place = await self._service.queues.proclaim(queue, lease, value, timeout_ms=timeout)
        return self._granted(request, queue, place)
