"""The Python clients, against nodes that answer as they are told, and against a real cluster."""
