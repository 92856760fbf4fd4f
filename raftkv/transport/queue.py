"""What waits to be sent to one peer: envelopes in order, and the latest status report.

Rules:
- Bounded in bytes and in envelopes. What comes on top is dropped and counted: Raft resends what matters, and
  what is older is worth more to the receiver (a later AppendEntries doesn't fit without the earlier one).
- A closed queue (its link is down) drops all: what is sent to a peer that comes back must be new.
- Everything that waits leaves in one frame, up to ``target_frame_bytes``.

Must not know: sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from raftkv.consensus.messages import Envelope
from raftkv.consensus.types import NodeId
from raftkv.transport.limits import LinkLimits
from raftkv.wire.codec import encode_envelopes, envelope_size
from raftkv.wire.errors import WireError
from raftkv.wire.frames import PROTOCOL_VERSION
from raftkv.wire.versions import version_of

logger = structlog.get_logger(__name__)

# Leaves room for the frame's own kind and array header under the receiver's max_frame_bytes.
_FRAME_HEADER_BYTES = 16
_MAX_FRAME_MESSAGES = 4096


class SendQueue:
    """Pushed to by ``PeerNetwork.send``, taken from by the link's writer, both on the event loop."""

    def __init__(self, peer: NodeId, limits: LinkLimits) -> None:
        self.dropped_messages = 0
        self._peer = peer
        self._limits = limits
        self._open = False
        self._waiting: deque[Envelope] = deque()
        self._waiting_bytes = 0
        self._latest_status: bytes | None = None
        self._status_waits = False
        self._overflowing = False
        self.version = PROTOCOL_VERSION
        self._outdated = False
        self._wakeup: asyncio.Future[None] | None = None

    def open(self, version: int = PROTOCOL_VERSION) -> None:
        """The link is up, and speaks ``version`` of the protocol. The latest status goes out again: the peer
        may have forgotten it.
        """
        self._open = True
        self.version = version
        self._status_waits = self._latest_status is not None

    def close(self) -> None:
        self._open = False
        self._waiting.clear()
        self._waiting_bytes = 0
        self._status_waits = False
        self._overflowing = False
        self._outdated = False

    def push(self, envelope: Envelope) -> None:
        if not self._open:
            self.dropped_messages += 1
            return
        if self.version < PROTOCOL_VERSION and version_of(envelope.message) > self.version:
            self._drop_newer(envelope)
            return
        size = envelope_size(envelope)
        limits = self._limits
        if (
            self._waiting_bytes + size > limits.max_queue_bytes
            or len(self._waiting) >= limits.max_queue_messages
            or size > limits.max_frame_bytes - _FRAME_HEADER_BYTES
        ):
            self._drop(size)
            return
        self._waiting.append(envelope)
        self._waiting_bytes += size
        self._wake()

    def publish(self, status_frame: bytes) -> None:
        """Replaces a status that still waits."""
        self._latest_status = status_frame
        if self._open:
            self._status_waits = True
            self._wake()

    def take(self) -> bytes | None:
        """The next frame, or None where nothing waits."""
        while self._waiting:
            envelopes = self._take_envelopes()
            self._overflowing = False
            try:
                return encode_envelopes(envelopes)
            except WireError as exc:
                # A bug of ours. Without a line of its own it would look like a lossy network.
                self.dropped_messages += len(envelopes)
                logger.error("messages can't be encoded", peer=self._peer, error=str(exc))
        if self._status_waits:
            self._status_waits = False
            return self._latest_status
        return None

    async def filled(self) -> None:
        """Wait until there is something to take. One waiter at a time."""
        if self._waiting or self._status_waits:
            return
        self._wakeup = asyncio.get_running_loop().create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _take_envelopes(self) -> list[Envelope]:
        waiting = self._waiting
        if self._waiting_bytes <= self._limits.target_frame_bytes and len(waiting) <= _MAX_FRAME_MESSAGES:
            envelopes = list(waiting)
            waiting.clear()
            self._waiting_bytes = 0
            return envelopes
        envelopes = [waiting.popleft()]
        taken_bytes = envelope_size(envelopes[0])
        while waiting and len(envelopes) < _MAX_FRAME_MESSAGES:
            size = envelope_size(waiting[0])
            if taken_bytes + size > self._limits.target_frame_bytes:
                break
            envelopes.append(waiting.popleft())
            taken_bytes += size
        self._waiting_bytes -= taken_bytes
        return envelopes

    def _drop(self, size_bytes: int) -> None:
        self.dropped_messages += 1
        if size_bytes > self._limits.max_frame_bytes - _FRAME_HEADER_BYTES:
            # NB: it will be resent and dropped for ever; whoever made it must bound it below.
            logger.error(
                "message over the frame limit",
                peer=self._peer,
                bytes=size_bytes,
                max_frame_bytes=self._limits.max_frame_bytes,
            )
        elif not self._overflowing:  # one line an episode, not one a message
            self._overflowing = True
            logger.warning(
                "peer queue full, dropping",
                peer=self._peer,
                queued_bytes=self._waiting_bytes,
                queued_messages=len(self._waiting),
            )

    def _drop_newer(self, envelope: Envelope) -> None:
        self.dropped_messages += 1
        if not self._outdated:  # one line a link
            self._outdated = True
            logger.error(
                "the peer's release is too old for what the cluster does now: upgrade it",
                peer=self._peer,
                message=type(envelope.message).__name__,
                speaks=self.version,
                needed=version_of(envelope.message),
            )

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
