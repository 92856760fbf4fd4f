"""An event loop whose clock jumps to the next timer when there is nothing else to do: seconds take no time.

For code that does no I/O. A test that waits for what never comes fails at once, instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


_PASS_S = 1e-6  # a pass of the loop takes some time: else a timer early by a rounding error would spin


class _Selector(selectors.SelectSelector):
    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everyone waits, and no timer is set: this would hang")
        if not ready:
            self.now_s += max(timeout or 0.0, _PASS_S)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on such a loop. What the loop complains of fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        complaints: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
            runner.run(test(*args, **kwargs))
        assert complaints == []

    return run


async def advance(ms: float) -> None:
    """Let virtual time pass."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(ms / 1000, passed.set_result, None)
    await passed


async def settle() -> None:
    """Let everything run that can without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
