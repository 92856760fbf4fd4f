"""``Client``: ``AsyncClient`` for programs without asyncio, and for notebooks, whose own loop is in use.

Each client has an event loop in a thread of its own, on which the async one runs; calls wait for it. So it
may be used by many threads, and leases are kept alive however long the program computes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from raftkv.sdk import kv, leases, locks, services, view, watching
from raftkv.sdk.client import AsyncClient
from raftkv.sdk.forms import Data, Key
from raftkv.sdk.operations import Compare, TxnParts
from raftkv.sdk.results import Event, Holder, Instance, Item, TxnResult

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
Face = TypeVar("Face")
H = TypeVar("H", bound=locks.Held)


class LoopThread:
    """An event loop that runs in a thread of its own until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="raftkv-client", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns or raises. If the waiting is interrupted (Ctrl-C), it is cancelled."""
        if self.closed:
            work.close()
            raise RuntimeError("this client is closed")
        future = self.begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Cancel what runs, and end. Idempotent."""
        if not self.closed:
            self.run(_cancel_others())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _call(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """``method`` as one that waits."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.run(method(self._client, *args, **kwargs))

    return call


def _made(
    method: Callable[Concatenate[AsyncClient, P], A], face: Callable[[LoopThread, A], Face]
) -> Callable[Concatenate[Client, P], Face]:
    """``method``, whose result gets a face that waits."""

    @functools.wraps(method)
    def make(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Face:
        return face(self._thread, method(self._client, *args, **kwargs))

    return make


class Steps(Iterator[T]):
    """An async iterator, step by step. A step whose waiting was given up is gone on with by the next."""

    def __init__(self, thread: LoopThread, inner: AsyncIterator[T]) -> None:
        self._thread = thread
        self._inner = inner
        self._step: concurrent.futures.Future[T] | None = None

    def __next__(self) -> T:
        try:
            return self._next(None)
        except StopAsyncIteration:
            raise StopIteration from None

    def poll(self, timeout: float) -> T | None:
        """The next one, None if there is none within ``timeout`` seconds. Raises as iterating does."""
        try:
            return self._next(timeout)
        except concurrent.futures.TimeoutError:
            if self._step is None:  # it was raised within the step
                raise
            return None

    def _next(self, timeout: float | None) -> T:
        step = self._step = self._step or self._thread.begin(_step(self._inner))
        concurrent.futures.wait((step,), timeout)
        if not step.done():
            raise concurrent.futures.TimeoutError
        self._step = None
        return step.result()

    def close(self) -> None:
        if self._step is not None:
            self._step.cancel()
            concurrent.futures.wait((self._step,))
            self._step = None
        if isinstance(self._inner, AsyncGenerator):
            self._thread.run(_closed(self._inner))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _step(inner: AsyncIterator[T]) -> T:
    return await anext(inner)


async def _closed(inner: AsyncGenerator[Any]) -> None:
    await inner.aclose()


class Watch(Steps[Event]):
    """See ``raftkv.sdk.watching.Watch``."""

    def __init__(self, thread: LoopThread, inner: watching.Watch) -> None:
        super().__init__(thread, aiter(inner))
        self._watch = inner

    @property
    def revision(self) -> int:
        return self._watch.revision

    def together(self) -> Steps[tuple[Event, ...]]:
        return Steps(self._thread, self._watch.together())

    def close(self) -> None:
        super().close()
        self._thread.run(self._watch.aclose())


class _Entered(Generic[A]):
    """What has ``start`` and ``stop``, as a context manager that waits."""

    def __init__(self, thread: LoopThread, inner: A) -> None:
        self._thread = thread
        self._inner = inner

    def __enter__(self) -> Self:
        inner: Any = self._inner
        self._thread.run(inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inner: Any = self._inner
        self._thread.run(inner.__aexit__(kind, error, trace))


async def _happens(event: Coroutine[Any, Any, None], timeout: float | None) -> bool:
    try:
        async with asyncio.timeout(timeout):
            await event
    except TimeoutError:
        return False
    return True


class KeptLease(_Entered[leases.KeptLease]):
    """See ``raftkv.sdk.leases.KeptLease``."""

    @property
    def id(self) -> int:
        return self._inner.id

    @property
    def lost(self) -> bool:
        return self._inner.lost

    def check(self) -> None:
        self._inner.check()

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until it is lost; False if that did not happen within ``timeout`` seconds."""
        return self._thread.run(_happens(self._inner.wait_lost(), timeout))


class _Held(_Entered[H]):
    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def fencing_token(self) -> int:
        return self._inner.fencing_token

    @property
    def lease(self) -> int:
        return self._inner.lease

    @property
    def lost(self) -> bool:
        return self._inner.lost

    def check(self) -> None:
        """Raises ``LockLost`` where it is not held any more."""
        self._inner.check()

    def held(self) -> Compare:
        """See ``raftkv.sdk.locks.Held.held``."""
        return self._inner.held()

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until it is lost; False if that did not happen within ``timeout`` seconds."""
        return self._thread.run(_happens(self._inner.wait_lost(), timeout))

    def acquire(self) -> int:
        """See ``raftkv.sdk.locks.Held.acquire``."""
        return self._thread.run(self._inner.acquire())

    def release(self) -> None:
        self._thread.run(self._inner.release())


class Lock(_Held[locks.Lock]):
    """See ``raftkv.sdk.locks.Lock``."""


class Leadership(_Held[locks.Leadership]):
    """See ``raftkv.sdk.locks.Leadership``."""

    def proclaim(self, value: Data) -> None:
        self._thread.run(self._inner.proclaim(value))


class Registration(_Entered[services.Registration]):
    """See ``raftkv.sdk.services.Registration``."""

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def listed(self) -> bool:
        return self._inner.listed


class View(_Entered[view.View], Mapping[str, Item]):
    """See ``raftkv.sdk.view.View``."""

    def __getitem__(self, key: Key) -> Item:
        return self._inner[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def revision(self) -> int:
        return self._inner.revision

    def value(self, key: Key, default: bytes | None = None) -> bytes | None:
        return self._inner.value(key, default)

    def wait_for(self, revision: int, timeout: float | None = None) -> None:
        self._thread.run(self._inner.wait_for(revision, timeout))

    def changed(self, timeout: float | None = None) -> int:
        return self._thread.run(self._inner.changed(timeout))

    def changes(self) -> Steps[dict[str, Item]]:
        return Steps(self._thread, self._inner.changes())


class TxnBuilder(TxnParts):
    """See ``AsyncClient.txn``."""

    def __init__(self, thread: LoopThread, inner: kv.TxnBuilder) -> None:
        super().__init__()
        self._thread = thread
        self._calls = inner.calls

    def commit(self, *, idempotency_key: str | None = None, timeout: float | None = None) -> TxnResult:
        """See ``AsyncClient.commit``."""
        return self._thread.run(
            self._calls.commit(self.txn, idempotency_key=idempotency_key, timeout=timeout)
        )


class Client:
    """As ``AsyncClient``, and its calls are the same, but wait. Close it, or use it by ``with``."""

    def __init__(
        self,
        endpoints: str | list[str] | tuple[str, ...] | None = None,
        *,
        timeout: float | None = None,
        idempotent: bool = True,
        learn: bool = True,
    ) -> None:
        """As ``AsyncClient``."""
        given: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        self._client = AsyncClient(endpoints, **given, idempotent=idempotent, learn=learn)
        self._thread = LoopThread()

    get = _call(AsyncClient.get)
    read = _call(AsyncClient.read)
    poll = _call(AsyncClient.poll)
    put = _call(AsyncClient.put)
    delete = _call(AsyncClient.delete)
    delete_range = _call(AsyncClient.delete_range)
    page = _call(AsyncClient.page)
    scan = _made(AsyncClient.scan, Steps[Item])
    increment = _call(AsyncClient.increment)
    txn = _made(AsyncClient.txn, TxnBuilder)
    commit = _call(AsyncClient.commit)
    batch = _call(AsyncClient.batch)
    compact = _call(AsyncClient.compact)
    grant = _call(AsyncClient.grant)
    keep_alive = _call(AsyncClient.keep_alive)
    revoke = _call(AsyncClient.revoke)
    lease = _call(AsyncClient.lease)
    leases = _call(AsyncClient.leases)
    kept_lease = _made(AsyncClient.kept_lease, KeptLease)
    lock = _made(AsyncClient.lock, Lock)
    lock_info = _call(AsyncClient.lock_info)
    campaign = _made(AsyncClient.campaign, Leadership)
    leader = _call(AsyncClient.leader)
    observe = _made(AsyncClient.observe, Steps[Holder | None])
    register = _made(AsyncClient.register, Registration)
    deregister = _call(AsyncClient.deregister)
    services = _call(AsyncClient.services)
    instances = _call(AsyncClient.instances)
    follow_instances = _made(AsyncClient.follow_instances, Steps[tuple[Instance, ...]])
    watch = _made(AsyncClient.watch, Watch)
    view = _made(AsyncClient.view, View)
    status = _call(AsyncClient.status)
    cluster = _call(AsyncClient.cluster)
    ready = _call(AsyncClient.ready)
    transfer = _call(AsyncClient.transfer)
    members = _call(AsyncClient.members)
    add_member = _call(AsyncClient.add_member)
    replace_member = _call(AsyncClient.replace_member)
    promote_member = _call(AsyncClient.promote_member)
    remove_member = _call(AsyncClient.remove_member)
    move_member = _call(AsyncClient.move_member)
    take_snapshot = _call(AsyncClient.take_snapshot)
    backup = _made(AsyncClient.backup, Steps[bytes])

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self._client.endpoints

    def close(self) -> None:
        """Idempotent. What still waits in other threads is cancelled."""
        if not self._thread.closed:
            self._thread.run(self._client.close())
            self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
