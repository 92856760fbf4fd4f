"""``python -m tests.cluster.corrupted KEY serve ...``: a node whose machine holds another value than was put
at KEY. Everything else in it is the real node.
"""

from __future__ import annotations

import sys

from raftkv.cli import main
from raftkv.kv.store import Store


def corrupt(poisoned: bytes) -> None:
    original = Store.put

    def put(self: Store, key: bytes, value: bytes, content_type: str | None) -> int:
        return original(self, key, value[::-1] if key == poisoned else value, content_type)

    Store.put = put  # type: ignore[method-assign]


if __name__ == "__main__":
    corrupt(sys.argv.pop(1).encode())
    main()
