"""What became of the operations of a transaction or batch, as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raftkv.api.envelope import envelope
from raftkv.api.form import Fields, bytes_of
from raftkv.api.operations import named
from raftkv.api.writes import refusal
from raftkv.kv.results import (
    DeleteResult,
    GetResult,
    IncrementResult,
    Malformed,
    PutResult,
    RangeResult,
    Refused,
    Rejected,
    TxnResult,
)


def txn_outcome(
    document: Mapping[str, Any], result: TxnResult, fields: Fields, revision: int | None = None
) -> dict[str, Any]:
    """``document``: the transaction as it was asked for, which has been encoded before; ``revision``: of the
    one that it stands in.
    """
    branch = document.get("then" if result.succeeded else "else", [])
    # NB: a put that was undone by what came after it has a revision that another will take.
    done_at = result.revision if revision is None else revision
    return {"succeeded": result.succeeded, "results": outcomes(branch, result.results, fields, done_at)}


def outcomes(
    documents: Sequence[Mapping[str, Any]],
    results: Sequence[Any],
    fields: Fields,
    revision: int | None = None,
) -> list[dict[str, Any]]:
    """One for each operation of ``documents``; ``revision``: that all of them have, if they have one."""
    pairs = zip(documents, results, strict=True)
    return [
        _put_outcome(result, revision)
        if type(result) is PutResult
        else _outcome(*named(document), result, fields, revision)
        for document, result in pairs
    ]


def _put_outcome(result: PutResult, revision: int | None) -> dict[str, Any]:
    done_at, version, lease = result
    told: dict[str, Any] = {
        "revision": done_at if revision is None else revision,
        "version": version,
        "created": version == 1,
    }
    if lease:
        told["lease"] = lease
    return {"put": told}


def _outcome(
    name: str, asked: Mapping[str, Any], result: Any, fields: Fields, revision: int | None
) -> dict[str, Any]:
    """``{"get": {...}}`` and the like, or ``{"error": {"code", "detail"}}``."""
    match result:
        case GetResult():
            key = bytes_of(asked, "key") or b""
            return {name: {"item": None if result.item is None else envelope(key, result.item, fields)}}
        case RangeResult():
            if asked.get("keys_only"):
                items = [fields("key", key) for key, _ in result.items]
            else:
                items = [envelope(key, item, fields) for key, item in result.items]
            return {name: {"items": items, "more": result.more}}
        case DeleteResult():
            return {name: {"deleted": result.deleted}}
        case IncrementResult():
            return {name: {"value": result.value, "version": result.version}}
        case TxnResult():
            return {name: txn_outcome(asked, result, fields, revision)}
        case Refused() | Malformed() | Rejected():
            error = refusal(result)
            return {"error": {"code": error.code, "detail": error.detail}}
        case _:
            raise TypeError(f"not the result of an operation: {result!r}")
