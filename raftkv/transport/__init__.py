"""The links to the peers: one HTTP connection each way per pair, upgraded to a WebSocket
(``docs/protocol.md``).

``network.PeerNetwork`` is what others use; the rest of the room is its parts: ``hello`` (who may talk to
whom), ``queue`` (what waits for one peer), ``link`` (outgoing), ``listener`` (incoming), ``peers`` (what is
known of each peer, and when one counts as lost). It must not know Raft's rules, disks, or what a command
means.
"""
