"""What programs use: ``AsyncClient``, and ``Client``, which is the same without asyncio.

``calling`` decides which node is asked, and what is asked again; ``streams`` is the same for answers that
go on; ``kv``, ``leases``, ``locks``, ``services``, ``watching``, ``view`` and ``cluster`` are the calls;
``sync`` runs them on an event loop in a thread of its own. Must not know the server.
"""
