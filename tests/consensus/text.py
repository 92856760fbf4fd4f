"""The protocol as readable text: ``n1@3 → n2 AppendEntries prev=4@2 entries=[5@3 6@3] commit=4``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from raftkv.consensus import Envelope, Node
from raftkv.consensus.membership import decode_membership
from raftkv.consensus.messages import (
    AppendEntries,
    AppendEntriesRefusal,
    AppendEntriesReply,
    ChangeMembers,
    ChangeMembersReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    LeaseGrant,
    LeaseRead,
    Message,
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
from raftkv.consensus.roles import Candidate, Follower, Leader, PreCandidate
from raftkv.consensus.types import Entry, EntryKind, Write
from tests.consensus.members import membership_text


def entries_text(entries: Iterable[Entry]) -> str:
    """``[5@3 6@3:x]``: index, term and, where there is any, the data."""
    return "[" + " ".join(map(entry_text, entries)) + "]"


def entry_text(entry: Entry) -> str:
    data = f":{entry.data.decode()}" if entry.data else ""
    if entry.kind is EntryKind.CONFIG:
        data = f":{membership_text(decode_membership(entry.data))}"
    return f"{entry.index}@{entry.term}{data}"


def envelope_text(envelope: Envelope) -> str:
    return f"{envelope.sender}@{envelope.term} → {envelope.receiver} {message_text(envelope.message)}"


def message_text(message: Message) -> str:
    name = type(message).__name__
    match message:
        case PreVote():
            return f"{name} next={message.next_term} last={message.last_log_index}@{message.last_log_term}"
        case PreVoteReply():
            return f"{name} next={message.next_term} {_verdict(message.granted)}"
        case RequestVote():
            wished = " transfer" if message.transfer else ""
            return f"{name} last={message.last_log_index}@{message.last_log_term}{wished}"
        case RequestVoteReply():
            return f"{name} {_verdict(message.granted)}"
        case AppendEntries():
            prev = f"prev={message.prev_log_index}@{message.prev_log_term}"
            return f"{name} {prev} entries={entries_text(message.entries)} commit={message.leader_commit}"
        case AppendEntriesReply():
            return f"{name} match={message.match_index}"
        case AppendEntriesRefusal():
            return f"{name} prev={message.prev_log_index} hint={message.hint_index}@{message.hint_term}"
        case InstallSnapshot():
            return f"{name} {message.meta.index}@{message.meta.term}"
        case Heartbeat():
            return f"{name} round={message.round} commit={message.leader_commit} match={message.match_index}"
        case HeartbeatReply():
            return f"{name} round={message.round}"
        case LeaseGrant():
            return f"{name} round={message.round} for={message.lease_ms}"
        case LeaseRead():
            return f"{name} {message.context}"
        case ReadIndex():
            return f"{name} {message.context}"
        case ReadIndexReply():
            return f"{name} {message.context} index={message.index}"
        case Propose():
            return f"{name} {' '.join(batch.decode() for batch in message.batches)}"
        case TransferLeadership():
            return f"{name} to={message.target or 'anyone'}"
        case TimeoutNow():
            return name
        case ChangeMembers():
            return f"{name} {message.context} {message.change}{' by force' if message.force else ''}"
        case ChangeMembersReply():
            index = f" index={message.index}" if message.index else ""
            return f"{name} {message.context} {verdict_text(message)}{index}"
        case _:
            assert_never(message)


def verdict_text(reply: ChangeMembersReply) -> str:
    return reply.verdict.name.lower() + (f": {reply.reason}" if reply.reason else "")


def _verdict(granted: bool) -> str:
    return "granted" if granted else "refused"


def write_text(write: Write) -> str:
    parts = []
    if write.hard_state is not None:
        parts.append(f"term={write.hard_state.current_term} vote={write.hard_state.voted_for or '-'}")
    if write.boundary is not None:
        parts.append(f"after={write.boundary.index}@{write.boundary.term}")
    if write.entries:
        parts.append(f"entries={entries_text(write.entries)}")
    return " ".join(parts)


def role_text(node: Node) -> str:
    """``n1@3 leader``, ``n2@3 follower of n1``."""
    match node.role:
        case Leader():
            role = "leader"
        case Candidate():
            role = "candidate"
        case PreCandidate():
            role = "pre-candidate"
        case Follower(leader=None):
            role = "follower"
        case Follower(leader=leader):
            role = f"follower of {leader}"
    return f"{node.node_id}@{node.current_term} {role}"


def progress_text(node: Node) -> list[str]:
    """How a leader sees each follower."""
    assert isinstance(node.role, Leader), f"{node.node_id} doesn't lead"
    return [
        f"{peer} {each.mode.value} match={each.match_index} next={each.next_index}"
        + (f" inflight={len(each.inflight)}/{each.inflight_bytes}B" if each.inflight else "")
        + (" waiting" if each.probing else "")
        for peer, each in node.role.progress.items()
    ]
