"""The bytes between nodes: msgpack frames of envelopes, hellos and status reports (``docs/protocol.md``).

Pure functions from values to bytes and back. This room must not know sockets, clocks, disks or what a command
means: entry data and proposed batches pass through it unread.
"""
