"""A key with all that is known of it, as a document."""

from __future__ import annotations

from typing import Any

from raftkv.api.form import Fields, text_or_base64
from raftkv.kv.row import Item


def key_fields(key: bytes) -> dict[str, str]:
    """``{"key": text}``, or ``{"key_base64": ...}`` where the key isn't UTF-8."""
    return text_or_base64("key", key)


def envelope(key: bytes, item: Item, fields: Fields = text_or_base64) -> dict[str, Any]:
    """As JSON types; ``fields`` says how bytes are told."""
    return {
        **fields("key", key),
        **fields("value", item.value),
        "create_revision": item.create_revision,
        "mod_revision": item.mod_revision,
        "version": item.version,
        "lease": item.lease or None,
        "content_type": item.content_type,
    }
