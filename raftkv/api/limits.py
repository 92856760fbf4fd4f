"""The limits that handlers keep, apart from them so that neither imports the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests; see the fields of the same names in ``config.Config`` for those that have some."""

    max_key_bytes: int
    max_value_bytes: int
    max_request_bytes: int
    request_timeout_ms: float
    max_request_timeout_ms: float
    max_refresh_ms: float = 1_000.0  # how long a read with max_staleness waits for the leader's word
    max_backups: int = 2  # at a time; fewer than the machine has images for
    max_backup_stall_ms: float = 30_000.0  # how long a backup's reader may take nothing
    max_backup_kept_bytes: int = 256 << 20  # of rows that were changed while a backup was read, each
    quota_bytes: int = 0  # of the store's keys and rows: beyond it nothing more is stored; 0: none
    max_txn_operations: int = 1_000  # compares and operations of all branches
    max_batch_operations: int = 10_000
    max_watchers: int = 20_000  # at a time, and those who wait for a key to change
    max_watch_stall_ms: float = 10_000.0  # how long a watcher may take nothing
    max_watch_staleness_ms: float = 10_000.0  # after so long without a leader it is better off elsewhere
