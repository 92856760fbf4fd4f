"""The store against a dict that is sorted anew for every page."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raftkv.kv.store import Item, Page, Store, prefix_end

# Few bytes, short keys: collisions, prefixes of one another, and both ends of the order.
KEYS = st.binary(max_size=3).map(lambda key: bytes(b"\x00\x61\x62\xff"[byte % 4] for byte in key))


@dataclass
class Known:
    value: bytes
    content_type: str | None
    create_revision: int
    mod_revision: int
    version: int = 1

    @property
    def item(self) -> Item:
        return Item(self.value, self.create_revision, self.mod_revision, self.version, self.content_type)


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.known: dict[bytes, Known] = {}
        self.revision = 0

    @rule(key=KEYS, value=st.binary(max_size=4), content_type=st.none() | st.text(max_size=4))
    def put(self, key: bytes, value: bytes, content_type: str | None) -> None:
        self.revision += 1
        old = self.known.get(key)
        created = self.revision if old is None else old.create_revision
        version = 1 if old is None else old.version + 1
        self.known[key] = Known(value, content_type, created, self.revision, version)
        assert self.store.put(key, value, content_type) == version
        assert self.store.get(key) == self.known[key].item

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        was_there = self.known.pop(key, None) is not None
        self.revision += was_there
        assert self.store.delete(key) is was_there

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        known = self.known.get(key)
        assert self.store.get(key) == (known.item if known else None)
        assert self.store.mod_revision(key) == (known.mod_revision if known else 0)

    @rule(start=KEYS, end=st.none() | KEYS, limit=st.integers(1, 6), reverse=st.booleans())
    def page(self, start: bytes, end: bytes | None, limit: int, reverse: bool) -> None:
        keys = sorted(key for key in self.known if start <= key and (end is None or key < end))
        if reverse:
            keys.reverse()
        items = [(key, self.known[key].item) for key in keys[:limit]]
        expected = Page(items, more=len(keys) > limit)
        assert self.store.page(start, end, limit, reverse=reverse) == expected

    @invariant()
    def agree(self) -> None:
        assert self.store.revision == self.revision
        assert len(self.store) == len(self.known)


StoreAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStore = StoreAgainstModel.TestCase


@given(prefix=KEYS, key=st.binary(max_size=5) | KEYS)
def test_a_prefix_is_a_range(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    assert (prefix <= key and (end is None or key < end)) == key.startswith(prefix)


def test_a_deleted_key_begins_anew() -> None:
    store = Store()
    store.put(b"k", b"1", "text/plain")
    store.put(b"k", b"2", None)
    store.delete(b"k")
    assert store.put(b"k", b"3", None) == 1
    assert store.get(b"k") == Item(b"3", 4, 4, 1, None)


def test_a_page_ends_early_at_its_bound_in_bytes_but_never_empty() -> None:
    store = Store()
    for key in (b"a", b"b", b"c"):
        store.put(key, b"x" * 100, None)
    page = store.page(b"", None, 10, max_bytes=202)
    assert ([key for key, _ in page.items], page.more) == ([b"a", b"b"], True)
    page = store.page(b"", None, 10, max_bytes=10)
    assert ([key for key, _ in page.items], page.more) == ([b"a"], True)
    page = store.page(b"", None, 10, max_bytes=303)
    assert (len(page.items), page.more) == (3, False)
