"""Envelopes, messages and entries as frames, and back.

An envelope on the wire: ``[group, sender, receiver, term, kind, field, ...]``; an entry:
``[index, term, kind, time_ms, data]``. ``_CODECS`` is the table of the messages: number, fields out, fields
in.

Rules:
- Decoding trusts nothing: each number, bool, id and length is checked; entries follow on ``prev_log_index``
  without a gap, and their terms never decrease and are none of the future. What is wrong is a ``WireError``,
  never another exception.
- This is the hot path, a few thousand frames a second: one msgpack call a frame, and no Python per byte.
- Entry data and proposed batches are opaque, but for memberships: a node can't go on with one it can't read.

Must not know: links, versions of peers (a frame is read by the version agreed in the hello), commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raftkv.consensus.membership import check_address, decode_membership, encode_membership
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
from raftkv.consensus.types import (
    AddLearner,
    Change,
    Entry,
    EntryKind,
    Membership,
    Move,
    Promote,
    Remove,
    SnapshotMeta,
    Verdict,
)
from raftkv.wire.errors import WireError
from raftkv.wire.frames import (
    MAX_ARRAY_ITEMS,
    FrameKind,
    check_name,
    check_numbers,
    open_frame,
    pack_frame,
    show,
)

MAX_GROUP = (1 << 32) - 1

# Upper bounds of what surrounds the opaque bytes, so that a frame can be bounded before it is packed.
_ENVELOPE_BYTES = (
    5 + 2 * 66 + 9 + 1 + 66 + 5 + 5
)  # group, two ids, term, kind, an id or three numbers, two array headers
_ENTRY_BYTES = 1 + 9 + 9 + 1 + 9 + 5
_BATCH_BYTES = 5
_CHANGE_BYTES = 10  # three small fields, and the headers of two ids and an address

_ENTRY_KINDS = {int(kind): kind for kind in EntryKind}
_VERDICTS = {int(verdict): verdict for verdict in Verdict}


def encode_envelopes(envelopes: Sequence[Envelope]) -> bytes:
    """One frame of all of them, in order. Raises ``WireError`` where one is over a limit."""
    return pack_frame(FrameKind.ENVELOPES, [_write_envelope(envelope) for envelope in envelopes])


def decode_envelopes(data: bytes) -> list[Envelope]:
    """The envelopes of a frame that must be one of envelopes. Raises ``WireError``."""
    kind, items = open_frame(data)
    if kind is not FrameKind.ENVELOPES:
        raise WireError(f"expected a frame of envelopes, got {kind.name.lower()}")
    return read_envelopes(items)


def read_envelopes(items: Sequence[Any]) -> list[Envelope]:
    """The envelopes in an opened frame's items. Raises ``WireError``."""
    return [_read_envelope(item) for item in items]


def envelope_size(envelope: Envelope) -> int:
    """An upper bound, in bytes, of what ``envelope`` adds to a frame.

    Too high by at most 250 bytes, and 34 an entry."""
    message = envelope.message
    size = _ENVELOPE_BYTES
    if type(message) is AppendEntries:
        for entry in message.entries:
            size += len(entry.data) + _ENTRY_BYTES
    elif type(message) is Propose:
        for batch in message.batches:
            size += len(batch) + _BATCH_BYTES
    elif type(message) is InstallSnapshot:
        size += len(encode_membership(message.membership)) + _BATCH_BYTES
    elif type(message) is ChangeMembers:
        _, _, _, node, address, _, replaces = _write_change_members(message)
        size += len(node) + len(address or "") + len(replaces or "") + _CHANGE_BYTES
    elif type(message) is ChangeMembersReply:
        size += len(message.reason.encode()) + _BATCH_BYTES
    return size


def _write_envelope(envelope: Envelope) -> list[Any]:
    message = envelope.message
    kind, write = _WRITERS[type(message)]
    return [envelope.group, envelope.sender, envelope.receiver, envelope.term, kind, *write(message)]


def _read_envelope(item: Any) -> Envelope:
    if type(item) is not list or len(item) < 5:
        raise WireError(f"an envelope is an array of at least 5, not {show(item)}")
    group, sender, receiver, term, kind, *fields = item
    check_numbers((group, term))
    if group > MAX_GROUP:
        raise WireError(f"group {group} is over the limit of {MAX_GROUP}")
    check_name(sender)
    check_name(receiver)
    if type(kind) is not int or kind not in _READERS:
        raise WireError(f"unknown message kind {show(kind)}")
    count, read = _READERS[kind]
    if len(fields) != count:
        raise WireError(f"message kind {kind} has {count} fields, not {len(fields)}")
    message = read(fields)
    if type(message) is AppendEntries and message.entries and message.entries[-1].term > term:
        raise WireError(f"an entry of term {message.entries[-1].term} in a message of term {term}")
    return Envelope(group, sender, receiver, term, message)


# --- one pair a message; a reader gets as many fields as its line in the table says ---


def _read_bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise WireError(f"{show(value)} is not a bool")


def _numbers(build: Callable[..., Message]) -> Callable[[list[Any]], Message]:
    """The reader of a message whose fields are all numbers."""

    def read(fields: list[Any]) -> Message:
        check_numbers(fields)
        return build(*fields)

    return read


def _read_pre_vote_reply(fields: list[Any]) -> PreVoteReply:
    next_term, granted = fields
    check_numbers((next_term,))
    return PreVoteReply(next_term, _read_bool(granted))


def _read_request_vote(fields: list[Any]) -> RequestVote:
    last_log_index, last_log_term, transfer = fields
    check_numbers((last_log_index, last_log_term))
    return RequestVote(last_log_index, last_log_term, _read_bool(transfer))


def _read_request_vote_reply(fields: list[Any]) -> RequestVoteReply:
    return RequestVoteReply(_read_bool(fields[0]))


def _write_append_entries(message: AppendEntries) -> Iterable[Any]:
    entries = message.entries
    if len(entries) > MAX_ARRAY_ITEMS:
        raise WireError(f"an AppendEntries of {len(entries)} entries is over the limit of {MAX_ARRAY_ITEMS}")
    packed = [(entry.index, entry.term, entry.kind, entry.time_ms, entry.data) for entry in entries]
    return message.prev_log_index, message.prev_log_term, message.leader_commit, packed


def _read_append_entries(fields: list[Any]) -> AppendEntries:
    prev_log_index, prev_log_term, leader_commit, items = fields
    check_numbers((prev_log_index, prev_log_term, leader_commit))
    if type(items) is not list:
        raise WireError(f"entries are an array, not {show(items)}")
    entries = []
    index, term = prev_log_index, prev_log_term
    for item in items:
        index += 1
        entry = _read_entry(item, index)
        if entry.term < term:  # a log can't hold this: told here, it costs a link, and later the node
            raise WireError(f"entry {index} of term {entry.term} follows one of term {term}")
        term = entry.term
        entries.append(entry)
    return AppendEntries(prev_log_index, prev_log_term, tuple(entries), leader_commit)


def _read_entry(item: Any, expected: int) -> Entry:
    if type(item) is not list or len(item) != 5:
        raise WireError(f"an entry is an array of 5, not {show(item)}")
    index, term, kind, time_ms, data = item
    check_numbers((index, term, kind, time_ms))
    if index != expected:
        raise WireError(f"entry {index} stands where {expected} follows")
    if kind not in _ENTRY_KINDS:
        raise WireError(f"unknown entry kind {kind}")
    if type(data) is not bytes:
        raise WireError(f"entry data is bytes, not {show(data)}")
    if kind == EntryKind.CONFIG:
        _read_membership(data)
    return Entry(index, term, _ENTRY_KINDS[kind], time_ms, data)


def _read_membership(data: Any) -> Membership:
    if type(data) is not bytes:
        raise WireError(f"a membership is bytes, not {show(data)}")
    try:
        return decode_membership(data)
    except ValueError as error:
        raise WireError(str(error)) from None


def _write_propose(message: Propose) -> Iterable[Any]:
    if len(message.batches) > MAX_ARRAY_ITEMS:
        raise WireError(f"a Propose of {len(message.batches)} batches is over the limit of {MAX_ARRAY_ITEMS}")
    return (message.batches,)


def _read_propose(fields: list[Any]) -> Propose:
    batches = fields[0]
    if type(batches) is not list:
        raise WireError(f"batches are an array, not {show(batches)}")
    for batch in batches:
        if type(batch) is not bytes:
            raise WireError(f"a batch is bytes, not {show(batch)}")
    return Propose(tuple(batches))


def _read_transfer_leadership(fields: list[Any]) -> TransferLeadership:
    target = fields[0]
    if target is not None:
        check_name(target)
    return TransferLeadership(target)


def _write_install_snapshot(message: InstallSnapshot) -> Iterable[Any]:
    meta = message.meta
    return meta.index, meta.term, meta.time_ms, encode_membership(message.membership)


def _read_install_snapshot(fields: list[Any]) -> InstallSnapshot:
    *numbers, membership = fields
    check_numbers(numbers)
    return InstallSnapshot(SnapshotMeta(*numbers), _read_membership(membership))


def _write_change_members(message: ChangeMembers) -> Iterable[Any]:
    change: tuple[Any, ...]
    match message.change:
        case AddLearner(node, address, promote, replaces):
            change = 0, node, address, promote, replaces
        case Promote(node):
            change = 1, node, None, False, None
        case Remove(node):
            change = 2, node, None, False, None
        case Move(node, address):
            change = 3, node, address, False, None
    return message.context, message.force, *change


def _read_change_members(fields: list[Any]) -> ChangeMembers:
    context, force, kind, node, address, promote, replaces = fields
    check_numbers((context, kind))
    check_name(node)
    if replaces is not None:
        check_name(replaces)
    change: Change
    match kind:
        case 0:
            change = AddLearner(node, _read_address(address), _read_bool(promote), replaces)
        case 1:
            change = Promote(node)
        case 2:
            change = Remove(node)
        case 3:
            change = Move(node, _read_address(address))
        case _:
            raise WireError(f"unknown change of members {kind}")
    message = ChangeMembers(context, change, _read_bool(force))
    if list(_write_change_members(message)) != fields:
        raise WireError(f"a change of members of kind {kind} has too many fields")
    return message


def _read_address(value: Any) -> str:
    if type(value) is not str:
        raise WireError(f"an address is text, not {show(value)}")
    try:
        return check_address(value)
    except ValueError as error:
        raise WireError(str(error)) from None


def _read_change_members_reply(fields: list[Any]) -> ChangeMembersReply:
    context, verdict, index, reason = fields
    check_numbers((context, verdict, index))
    if verdict not in _VERDICTS:
        raise WireError(f"unknown verdict {verdict}")
    if type(reason) is not str:
        raise WireError(f"a reason is text, not {show(reason)}")
    return ChangeMembersReply(context, _VERDICTS[verdict], index, reason)


@dataclass(frozen=True, slots=True)
class _Codec:
    """A message kind. ``number`` is on the wire: never renumber, never reuse."""

    number: int
    message: type[Message]
    fields: int
    write: Callable[[Any], Iterable[Any]]  # message -> its fields, in the order of docs/protocol.md
    read: Callable[[list[Any]], Message]  # exactly ``fields`` unchecked values -> message, or WireError


_CODECS = (
    _Codec(0, PreVote, 3, lambda m: (m.next_term, m.last_log_index, m.last_log_term), _numbers(PreVote)),
    _Codec(1, PreVoteReply, 2, lambda m: (m.next_term, m.granted), _read_pre_vote_reply),
    _Codec(2, RequestVote, 3, lambda m: (m.last_log_index, m.last_log_term, m.transfer), _read_request_vote),
    _Codec(3, RequestVoteReply, 1, lambda m: (m.granted,), _read_request_vote_reply),
    _Codec(4, AppendEntries, 4, _write_append_entries, _read_append_entries),
    _Codec(5, AppendEntriesReply, 1, lambda m: (m.match_index,), _numbers(AppendEntriesReply)),
    _Codec(
        6,
        AppendEntriesRefusal,
        3,
        lambda m: (m.prev_log_index, m.hint_index, m.hint_term),
        _numbers(AppendEntriesRefusal),
    ),
    _Codec(7, Heartbeat, 3, lambda m: (m.leader_commit, m.match_index, m.round), _numbers(Heartbeat)),
    _Codec(8, HeartbeatReply, 1, lambda m: (m.round,), _numbers(HeartbeatReply)),
    _Codec(9, ReadIndex, 1, lambda m: (m.context,), _numbers(ReadIndex)),
    _Codec(10, ReadIndexReply, 2, lambda m: (m.context, m.index), _numbers(ReadIndexReply)),
    _Codec(11, Propose, 1, _write_propose, _read_propose),
    _Codec(12, TransferLeadership, 1, lambda m: (m.target,), _read_transfer_leadership),
    _Codec(13, TimeoutNow, 0, lambda m: (), lambda fields: TimeoutNow()),
    _Codec(14, InstallSnapshot, 4, _write_install_snapshot, _read_install_snapshot),
    _Codec(15, ChangeMembers, 7, _write_change_members, _read_change_members),
    _Codec(
        16,
        ChangeMembersReply,
        4,
        lambda m: (m.context, m.verdict, m.index, m.reason),
        _read_change_members_reply,
    ),
    _Codec(17, LeaseGrant, 2, lambda m: (m.round, m.lease_ms), _numbers(LeaseGrant)),
    _Codec(18, LeaseRead, 1, lambda m: (m.context,), _numbers(LeaseRead)),
)

_WRITERS = {codec.message: (codec.number, codec.write) for codec in _CODECS}
_READERS = {codec.number: (codec.fields, codec.read) for codec in _CODECS}
