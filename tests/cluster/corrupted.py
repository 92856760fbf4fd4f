"""``python -m tests.cluster.corrupted KEY serve ...``: a node whose machine holds another value than was put
at KEY. Everything else in it is the real node.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from raftkv.cli import main
from raftkv.kv.store import Put, Store


def corrupt(poisoned: bytes) -> None:
    original = Store.put_all

    def put_all(self: Store, puts: Iterable[Put]) -> list[int]:
        return original(
            self, [(key, value[::-1] if key == poisoned else value, kind) for key, value, kind in puts]
        )

    Store.put_all = put_all  # type: ignore[method-assign]


if __name__ == "__main__":
    corrupt(sys.argv.pop(1).encode())
    main()
