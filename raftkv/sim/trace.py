"""What happened, as lines of text: all of it in one hash, the end of it in full.

``n1@3 → n2 AppendEntries 7@2 +4 commit 6``: node n1 in term 3 sends n2 four entries that follow entry 7 of
term 2. ``⇒`` is its arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    ChangeMembers,
    ChangeMembersReply,
    Envelope,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    LeaseGrant,
    LeaseRead,
    PreVote,
    PreVoteReply,
    Propose,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
    TransferLeadership,
)

KEPT_LINES = 2_000


class Trace:
    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._last: deque[str] = deque(maxlen=KEPT_LINES)

    def add(self, line: str) -> None:
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self._last.append(line)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits; equal for equal traces."""
        return self._hash.hexdigest()

    def end(self, lines: int) -> list[str]:
        return list(self._last)[-lines:]


def _answer(granted: bool) -> str:
    return "yes" if granted else "no"


_IN_WORDS: dict[type, Callable[[Any], str]] = {
    PreVote: lambda m: f"PreVote for {m.next_term} log {m.last_log_index}@{m.last_log_term}",
    PreVoteReply: lambda m: f"PreVoteReply for {m.next_term} {_answer(m.granted)}",
    RequestVote: lambda m: (
        f"RequestVote log {m.last_log_index}@{m.last_log_term}{' as wished' if m.transfer else ''}"
    ),
    RequestVoteReply: lambda m: f"RequestVoteReply {_answer(m.granted)}",
    AppendEntries: lambda m: (
        f"AppendEntries {m.prev_log_index}@{m.prev_log_term} +{len(m.entries)} commit {m.leader_commit}"
    ),
    AppendEntriesReply: lambda m: f"AppendEntriesReply {m.match_index}",
    AppendEntriesRefusal: lambda m: (
        f"AppendEntriesRefusal {m.prev_log_index} hint {m.hint_index}@{m.hint_term}"
    ),
    InstallSnapshot: lambda m: f"InstallSnapshot {m.meta.index}@{m.meta.term}",
    Heartbeat: lambda m: f"Heartbeat {m.round} commit {m.leader_commit} match {m.match_index}",
    HeartbeatReply: lambda m: f"HeartbeatReply {m.round}",
    LeaseGrant: lambda m: f"LeaseGrant {m.round} for {m.lease_ms}",
    LeaseRead: lambda m: f"LeaseRead {m.context:x}",
    ReadIndex: lambda m: f"ReadIndex {m.context:x}",
    ReadIndexReply: lambda m: f"ReadIndexReply {m.context:x} at {m.index}",
    Propose: lambda m: f"Propose {len(m.batches)}",
    TransferLeadership: lambda m: f"TransferLeadership to {m.target or 'anyone'}",
    TimeoutNow: lambda m: "TimeoutNow",
    ChangeMembers: lambda m: f"ChangeMembers {m.context:x} {m.change}{' by force' if m.force else ''}",
    ChangeMembersReply: lambda m: f"ChangeMembersReply {m.context:x} {m.verdict.name} {m.index} {m.reason}",
}


def in_words(envelope: Envelope) -> str:
    message = envelope.message
    return f"{envelope.sender}@{envelope.term} → {envelope.receiver} {_IN_WORDS[type(message)](message)}"
