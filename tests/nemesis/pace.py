"""The one place where the nemesis lets time pass: how long faults last and clients think belongs to a drill.

Nothing is asserted of these times; what must become true is polled, with a deadline.
"""

from __future__ import annotations

import asyncio


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
