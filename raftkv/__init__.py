"""raftkv: a replicated, durable, linearizable key-value store in Python."""

__version__ = "0.1.0"
