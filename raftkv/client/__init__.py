"""The synchronous client the command line is built on: several endpoints, three outcomes.

``exchange`` is one HTTP request, ``download`` one with a large answer, ``failover`` decides which endpoint
gets it and what a failure means, ``kv`` are the calls. Standard library only: a health check every few
seconds must start fast.
"""

from raftkv.client.download import Download
from raftkv.client.errors import ClientError, NoQuorum, OutcomeUnknown, Problem, Refused, Unreachable
from raftkv.client.exchange import Endpoint, NoReply, NotSent, Reply, Request, exchange
from raftkv.client.failover import Cluster

__all__ = [
    "ClientError",
    "Cluster",
    "Download",
    "Endpoint",
    "NoQuorum",
    "NoReply",
    "NotSent",
    "OutcomeUnknown",
    "Problem",
    "Refused",
    "Reply",
    "Request",
    "Unreachable",
    "exchange",
]
