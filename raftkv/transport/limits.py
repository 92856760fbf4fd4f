"""The bounds of a link."""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.wire.frames import MAX_FRAME_BYTES


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """All positive; ``target_frame_bytes <= max_frame_bytes <= max_queue_bytes``.

    A peer that stays silent is given up after one and a half ``ping_interval_ms``.
    """

    max_queue_bytes: int = 32 << 20  # encoded envelopes that wait for one peer; what comes on top is dropped
    max_queue_messages: int = 16_384  # the same, in envelopes
    target_frame_bytes: int = 256 << 10  # a frame is closed when it has reached this
    max_frame_bytes: int = 32 << 20  # a larger envelope isn't sent, a larger frame closes the link
    connect_timeout_ms: int = 2_000  # from resolving the name to the peer's hello
    backoff_min_ms: int = 20  # before the second attempt; doubles up to
    backoff_max_ms: int = 1_000
    ping_interval_ms: int = 2_000  # without a byte from the peer; the pong may take half as long
    close_timeout_ms: int = 500  # for a polite goodbye
    snapshot_idle_timeout_ms: int = 10_000  # while nothing of a snapshot comes, or is taken
    snapshot_answer_timeout_ms: int = 60_000  # from its end to the answer: it must become durable

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if not self.target_frame_bytes <= self.max_frame_bytes <= self.max_queue_bytes:
            raise ValueError("must hold: target_frame_bytes <= max_frame_bytes <= max_queue_bytes")
        if self.max_frame_bytes > MAX_FRAME_BYTES:
            raise ValueError(f"max_frame_bytes is over the protocol's {MAX_FRAME_BYTES}")
        if self.backoff_min_ms > self.backoff_max_ms:
            raise ValueError("must hold: backoff_min_ms <= backoff_max_ms")
