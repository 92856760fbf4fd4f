"""A thread of its own for calls that wait for a disk, so that neither the loop nor the log's thread does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any] | None"]


class Worker:
    """Does what it is given, first in, first out. A daemon: a hung disk must not keep a process alive."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def do(self, call: Callable[[], _Result]) -> _Result:
        """What ``call`` returns or raises. Who is cancelled meanwhile leaves; the call is made all the same,
        before all that is asked later.
        """
        future: asyncio.Future[_Result] = self._loop.create_future()
        self._queue.put((call, future))
        return await future

    def later(self, call: Callable[[], object]) -> None:
        """Make ``call`` in its turn; nobody waits for it. It must not raise."""
        self._queue.put((call, None))

    def close(self) -> None:
        """Do what was given, and end: in a program that goes on, no thread is left behind."""
        self._queue.put(None)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            call, future = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as raised:  # it is for who asked, whatever it is
                error = raised
            if future is not None:
                with suppress(RuntimeError):  # the loop is closed: nobody is there any more to be told
                    self._loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("a call ended an iteration"))  # no future takes that one
    else:
        future.set_exception(error)
