"""The clients on real nodes that die and hang."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from raftkv import AsyncClient, Client, Event, LockLost, Put
from raftkv.testing import LocalCluster, LocalNode

pytestmark = pytest.mark.cluster

DEADLINE_S = 60.0
TASKS = 8


async def leader_of(cluster: LocalCluster, client: AsyncClient) -> LocalNode:
    return cluster.node(str((await client.cluster())["leader"]))


async def test_writes_are_done_once_and_watches_see_each_once_whatever_nodes_do(
    raftkv_cluster: LocalCluster, raftkv_endpoints: str
) -> None:
    """Tasks count, while the leader is killed, another is paused, and both come back; a watch, which began
    at the leader, and a view follow.
    """
    cluster, done = raftkv_cluster, [0] * TASKS
    moved, stop = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(DEADLINE_S), AsyncClient(raftkv_endpoints, timeout=DEADLINE_S) as client:

        async def count(task: int) -> None:
            while not stop.is_set():
                await client.increment("count/n")
                done[task] += 1
                moved.set()

        async def grown(by: int) -> None:
            least = [each + by for each in done]
            while any(each < wanted for each, wanted in zip(done, least, strict=True)):
                moved.clear()
                await moved.wait()

        begin = (await client.put("count/n", "0")).revision
        victim = await leader_of(cluster, client)
        async with (
            AsyncClient(victim.url) as other,
            client.view("count/") as view,
            other.watch(prefix="count/", from_revision=begin) as watch,
        ):
            events: list[Event] = [await anext(aiter(watch))]
            counting = [asyncio.create_task(count(task)) for task in range(TASKS)]
            await grown(3)
            await asyncio.to_thread(victim.kill)
            await grown(3)
            victim.start()
            await asyncio.to_thread(cluster.wait_ready)
            hung = await leader_of(cluster, client)
            hung.pause()
            await grown(3)
            hung.resume()
            await asyncio.to_thread(cluster.wait_ready)
            stop.set()
            await asyncio.gather(*counting)
            total = sum(done)
            last = await client.get("count/n")
            assert last is not None
            assert int(last.text) == total
            while events[-1].revision < last.mod_revision:
                events.append(await anext(aiter(watch)))
            assert [int(event.item.text) for event in events if event.item] == list(range(total + 1))
            await view.wait_for(last.mod_revision)
            assert view["count/n"] == last


async def test_a_lock_is_held_by_one_at_a_time_in_the_order_of_its_tokens(raftkv_endpoints: str) -> None:
    held, tokens = 0, list[int]()

    async def work(client: AsyncClient) -> None:
        nonlocal held
        async with client.lock("l", ttl=10.0) as lock:
            held += 1
            assert held == 1
            tokens.append(lock.fencing_token)
            await client.put("l", str(lock.fencing_token))
            held -= 1

    async with asyncio.timeout(DEADLINE_S), AsyncClient(raftkv_endpoints) as client:
        await asyncio.gather(*(work(client) for _ in range(TASKS)))
        assert tokens == sorted(set(tokens))
        assert len(tokens) == TASKS
        info = await client.lock_info("l")
        assert (info.holder, info.waiters) == (None, 0)


async def test_who_dies_with_a_lock_is_followed_by_the_next(raftkv_endpoints: str) -> None:
    async with asyncio.timeout(DEADLINE_S), AsyncClient(raftkv_endpoints) as client:
        dead = AsyncClient(raftkv_endpoints)
        before = await dead.lock("l", ttl=1.0).acquire()
        await dead.close()  # its renewals end
        async with client.lock("l", ttl=10.0) as lock:
            assert lock.fencing_token > before


async def test_a_transaction_depends_on_who_holds_a_lock(raftkv_endpoints: str) -> None:
    async with asyncio.timeout(DEADLINE_S), AsyncClient(raftkv_endpoints) as client:
        for held in (client.lock("l/ö", ttl=10.0), client.campaign("e", ttl=10.0)):
            with pytest.raises(LockLost):
                held.held()
            async with held:
                still = held.held()
                assert (await client.txn().when(still).then(Put("k", "1")).commit()).succeeded
            assert not (await client.txn().when(still).then(Put("k", "2")).commit()).succeeded
            async with held:  # the same lock, had again
                assert not (await client.txn().when(still).then(Put("k", "2")).commit()).succeeded


async def test_a_view_gives_whole_revisions_and_the_last_of_them(raftkv_endpoints: str) -> None:
    async with asyncio.timeout(DEADLINE_S), AsyncClient(raftkv_endpoints) as client:
        async with client.view("v/") as view:
            changes = view.changes()
            assert await anext(changes) == {}
            put = client.txn().then(Put("v/a", "1"), Put("v/b", "1"))
            await put.commit()
            assert {key: item.text for key, item in (await anext(changes)).items()} == {
                "v/a": "1",
                "v/b": "1",
            }
            await client.put("w", "not in it")
            await client.delete("v/a")
            last = await client.put("v/b", "2")
            await view.wait_for(last.revision)
            given = await anext(changes)
            assert {key: item.text for key, item in given.items()} == {"v/b": "2"}
            given.clear()  # its own
            assert view.value("v/b") == b"2"
            waiting = [asyncio.ensure_future(each) for each in (anext(changes), view.changed())]
            await asyncio.sleep(0)
        for each in waiting:
            with pytest.raises(RuntimeError, match="closed"):
                await each


async def test_leaders_and_instances_are_followed(raftkv_endpoints: str) -> None:
    async with asyncio.timeout(DEADLINE_S), AsyncClient(raftkv_endpoints) as client:
        leaders, instances = client.observe("e"), client.follow_instances("web")
        assert await anext(leaders) is None
        assert await anext(instances) == ()
        async with client.campaign("e", "one", ttl=10.0) as leadership:
            now = await anext(leaders)
            assert now is not None
            assert (now.value, now.fencing_token) == (b"one", leadership.fencing_token)
            await leadership.proclaim("two")
            said = await anext(leaders)
            assert said is not None
            assert said.value == b"two"
        assert await anext(leaders) is None
        async with client.register("web", "10.0.0.7:80", id="a", ttl=10.0) as registration:
            (instance,) = await anext(instances)
            assert (instance.id, instance.address) == ("a", "10.0.0.7:80")
            assert registration.listed
            assert await client.deregister("web", "a")
            assert await anext(instances) == ()
        await leaders.aclose()
        await instances.aclose()


async def test_the_waiting_client_works_where_a_loop_runs_already(raftkv_endpoints: str) -> None:
    """As in a notebook, and by several threads."""
    with Client(raftkv_endpoints) as client:
        threads = [threading.Thread(target=client.increment, args=("n",)) for _ in range(TASKS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        item = client.get("n")
        assert item is not None
        assert item.text == str(TASKS)
        with client.watch("n", from_revision=item.mod_revision) as watch:
            assert next(watch).item == item
            assert watch.poll(0.01) is None
            client.put("n", "next")
            event = watch.poll(DEADLINE_S)
            assert event is not None
            assert event.item is not None
            assert event.item.text == "next"
        assert b"".join(client.backup())
        assert client.endpoints
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get("n")


async def test_a_long_list_is_of_one_revision(raftkv_endpoints: str) -> None:
    async with AsyncClient(raftkv_endpoints) as client:
        await client.batch(Put(f"k{number:04}", "v") for number in range(1_200))
        found = []
        async for item in client.scan("k"):
            if not found:
                await client.delete_range(prefix="k")
            found.append(item.key)
        assert found == [f"k{number:04}" for number in range(1_200)]
        assert [item async for item in client.scan("k")] == []


def test_a_key_with_a_time_to_live_goes(raftkv_client: Client) -> None:
    put = raftkv_client.put("k", "v", ttl=0.5)
    with raftkv_client.watch("k", from_revision=put.revision) as watch:
        assert next(watch).kind == "put"
        assert next(watch).kind == "delete"
    assert raftkv_client.leases() == ()


def test_nodes_take_no_modules_from_where_they_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program's own ``types.py`` or ``queue.py`` isn't theirs."""
    (tmp_path / "asyncio.py").write_text("raise RuntimeError('this is no module for a node')")
    monkeypatch.chdir(tmp_path)
    with LocalCluster(nodes=1) as cluster, cluster.client() as client:
        assert client.put("k", "v").created
