"""Members come, go and move, on real processes: no acknowledged write is lost by it, and whoever isn't wanted
any more says why it ends.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from raftkv.testing.cluster import free_ports
from tests.cluster.harness import VERDICT, Cluster, Node, Reply, running
from tests.cluster.load import Book, Load

pytestmark = pytest.mark.cluster

DAMAGED = 65
LONG_S = 60.0


def newcomer(cluster: Cluster, name: str, by: Node) -> Node:
    """A node that asks ``by`` which cluster to join; started, and not added yet."""
    port, peer_port = free_ports(2)
    path = cluster.directory
    node = Node(name, port, peer_port, path / name, path / f"{name}.log", "", join=by.url)
    cluster.nodes.append(node)
    node.start()
    return node


async def add(cluster: Cluster, node: Node, by: Node, **more: Any) -> Reply:
    body = {"id": node.name, "address": node.peer_address, **more}
    return await cluster.request("POST", by, "/v1/cluster/members?timeout=20s", json=body)


async def remove(cluster: Cluster, name: str, by: Node, query: str = "") -> Reply:
    return await cluster.request("DELETE", by, f"/v1/cluster/members/{name}?timeout=20s{query}")


async def killed(node: Node) -> None:
    node.kill()
    await node.exit_code()


async def roles(cluster: Cluster, by: Node) -> dict[str, str]:
    """Each member's role; "voter" is who leads, too."""
    reply = await cluster.request("GET", by, "/v1/cluster/members")
    assert reply.status == 200, reply
    return {each["id"]: each["role"].replace("leader", "voter") for each in reply.body["members"]}


async def all_vote(cluster: Cluster, by: Node, *names: str) -> None:
    """Wait until these and no others are members, all of them vote, and nothing more is to change."""

    async def settled() -> bool:
        reply = await cluster.request("GET", by, "/v1/cluster/members")
        members = {each["id"]: each["role"] for each in reply.body["members"]}
        is_over = reply.body["committed"] and not reply.body["joint"]
        return is_over and set(members) == set(names) and set(members.values()) <= {"voter", "leader"}

    await cluster.serves_or_ended(by)
    await cluster.until(settled, f"{', '.join(names)} vote", LONG_S)


async def test_a_cluster_grows_and_shrinks_under_load(tmp_path: Path) -> None:
    async with running(tmp_path, size=1) as cluster:
        (n1,) = cluster.nodes
        book = Book()
        async with Load([n1], "a", writers=4, book=book) as load:
            await load.acknowledged(20)
            for name in ("n2", "n3", "n4", "n5"):
                node = newcomer(cluster, name, n1)
                reply = await add(cluster, node, n1)
                assert reply.status == 200, reply
                assert reply.body["index"] > 0
                await all_vote(cluster, n1, *(each.name for each in cluster.nodes))
                await load.acknowledged(20)
            for node in reversed(cluster.nodes[1:]):
                reply = await remove(cluster, node.name, n1)
                assert reply.status == 200, reply
                assert await node.exit_code() == 0
                assert any(event["event"].startswith("this node was removed") for event in node.events())
                await load.acknowledged(20)
            await all_vote(cluster, n1, "n1")
        assert not book.failures, list(book.failures.items())[:3]
        await book.check(cluster, n1, "a")


async def test_a_dead_node_is_replaced_in_one_step(tmp_path: Path) -> None:
    async with running(tmp_path, size=3) as cluster:
        leader = await cluster.leader()
        dead, other = cluster.others(leader)
        for number in range(50):
            assert (await cluster.put(leader, f"k{number}", "v")).status == 201
        await killed(dead)
        new = newcomer(cluster, "n4", other)
        reply = await add(cluster, new, other, replaces=dead.name)
        assert reply.status == 200, reply
        await all_vote(cluster, leader, leader.name, other.name, "n4")
        await cluster.caught_up(new)
        other.kill()  # a majority without the dead one and without this one: the new one counts
        await cluster.leader(among=[leader, new])
        assert (await cluster.get(new, "k49")).raw == b"v"
        # The dead one comes back as it was: nobody hears it, and it disturbs nobody.
        term = (await cluster.request("GET", leader, "/v1/status")).body["term"]
        dead.start()
        await cluster.serves_or_ended(dead)
        assert (await cluster.put(new, "after", "v")).status == 201
        assert (await cluster.request("GET", leader, "/v1/status")).body["term"] == term


async def test_all_nodes_restart_at_other_addresses(tmp_path: Path) -> None:
    """Their options say where the others are now; the list in the log follows by itself."""
    async with running(tmp_path, size=3) as cluster:
        assert (await cluster.put(cluster.nodes[0], "key", "value")).status == 201
        for node in cluster.nodes:
            await killed(node)
        for node, port in zip(cluster.nodes, free_ports(3), strict=True):
            node.peer_port = port
        addresses = {node.name: node.peer_address for node in cluster.nodes}
        for node in cluster.nodes:
            node.cluster = ",".join(f"{name}={address}" for name, address in addresses.items())
            node.start()
        await cluster.leader()

        async def listed() -> bool:
            replies = [await cluster.request("GET", node, "/v1/cluster/members") for node in cluster.nodes]
            found = [{each["id"]: each["address"] for each in reply.body["members"]} for reply in replies]
            return all(each == addresses for each in found)

        await cluster.until(listed, "all nodes list the new addresses", LONG_S)
        for node in cluster.nodes:
            assert (await cluster.get(node, "key")).raw == b"value"
        # From now on they find each other by the list: the options may say what was true at first.
        for node in cluster.nodes:
            await killed(node)
            node.cluster = "n1=127.0.0.1:1,n2=127.0.0.1:2,n3=127.0.0.1:3"
            node.options = ("--advertise-peer", node.peer_address)
            node.start()
        await cluster.leader()


async def test_a_wiped_node_is_told_to_come_back_under_a_new_id(tmp_path: Path) -> None:
    async with running(tmp_path, size=3) as cluster:
        leader = await cluster.leader()
        wiped, _ = cluster.others(leader)
        await killed(wiped)
        shutil.rmtree(wiped.data_dir)
        wiped.start()
        assert await wiped.exit_code() == DAMAGED
        (line,) = (line for line in wiped.last_words() if line.startswith(VERDICT))
        assert f"raftkv member replace {wiped.name}" in line


async def test_who_forgot_a_node_knows_it_from_the_log(tmp_path: Path) -> None:
    """All others have restarted since they heard of it."""
    async with running(tmp_path, size=3) as cluster:
        leader = await cluster.leader()
        wiped, _ = cluster.others(leader)
        await killed(wiped)
        wiped.start()
        await cluster.leader()
        assert (await cluster.put(wiped, "key", "value")).status == 201  # by its second run
        await killed(wiped)
        shutil.rmtree(wiped.data_dir)
        others = cluster.others(wiped)
        for node in others:
            await cluster.caught_up(node)
        for node in others:
            await killed(node)
        for node in others:
            node.start()
        await cluster.leader(among=others)
        wiped.start()
        assert await wiped.exit_code() == DAMAGED


async def test_one_that_waits_says_what_to_run_and_is_no_member(tmp_path: Path) -> None:
    async with running(tmp_path, size=1) as cluster:
        (n1,) = cluster.nodes
        n2 = newcomer(cluster, "n2", n1)
        await cluster.serves_or_ended(n2)
        waits = [event for event in n2.events() if event["event"] == "waiting to be added"]
        assert [event["run"] for event in waits] == [f"raftkv member add n2 {n2.peer_address}"]
        status = (await cluster.request("GET", n2, "/v1/status")).body
        assert (status["members"], status["role"]) == ([], "follower")
        assert (await cluster.request("GET", n2, "/v1/cluster")).body["has_quorum"] is False
        assert (await cluster.request("GET", n2, "/readyz")).status == 503
        # It restarts without asking again, and is added then.
        await killed(n2)
        n2.join = "http://127.0.0.1:1"
        n2.start()
        await cluster.serves_or_ended(n2)
        assert (await add(cluster, n2, n1, promote=False)).status == 200
        await cluster.leader()
        assert await roles(cluster, n2) == {"n1": "voter", "n2": "learner"}
        assert (await cluster.put(n2, "key", "value")).status == 201
        reply = await cluster.request("POST", n1, "/v1/cluster/members/n2/promote?timeout=20s")
        assert reply.status == 200, reply
        assert await roles(cluster, n1) == {"n1": "voter", "n2": "voter"}
        # And once more as a member: from its log it knows the others.
        await killed(n2)
        n2.start()
        await cluster.leader()


async def test_what_would_lose_the_quorum_is_refused_unless_forced(tmp_path: Path) -> None:
    async with running(tmp_path, size=3) as cluster:
        leader = await cluster.leader()
        dead, other = cluster.others(leader)
        await killed(dead)

        async def noticed() -> bool:
            members = (await cluster.request("GET", leader, "/v1/cluster/members")).body["members"]
            return {each["id"]: each["healthy"] for each in members} == {
                node.name: node is not dead for node in cluster.nodes
            }

        await cluster.until(noticed, "the leader notices that one is dead")
        reply = await remove(cluster, other.name, leader)
        assert (reply.status, reply.body["outcome"]) == (409, "not_applied"), reply
        assert dead.name in reply.body["detail"]
        assert await roles(cluster, leader) == {"n1": "voter", "n2": "voter", "n3": "voter"}
        assert (await remove(cluster, dead.name, leader)).status == 200
        await all_vote(cluster, leader, leader.name, other.name)
        assert (await cluster.put(other, "key", "value")).status == 201
        assert (await remove(cluster, dead.name, leader)).status == 200  # gone is gone
        await asyncio.gather(*(cluster.caught_up(node) for node in (leader, other)))


async def test_members_outlive_the_log_that_named_them(tmp_path: Path) -> None:
    """They are in the snapshots: for a restart, and for one that is sent a snapshot."""
    options = ("--snapshot-margin-bytes", "0")
    async with running(tmp_path, size=1, options=options) as cluster:
        (n1,) = cluster.nodes
        n2 = newcomer(cluster, "n2", n1)
        n2.options = options
        assert (await add(cluster, n2, n1)).status == 200
        await all_vote(cluster, n1, "n1", "n2")
        for number in range(20):
            assert (await cluster.put(n1, f"k{number}", "v")).status == 201
        await cluster.caught_up(n2)
        for node in (n1, n2):
            assert (await cluster.request("POST", node, "/v1/snapshot?timeout=20s")).status == 200
        for node in (n1, n2):
            await killed(node)
        for node in (n1, n2):
            node.start()
        await cluster.leader()
        assert await roles(cluster, n1) == await roles(cluster, n2) == {"n1": "voter", "n2": "voter"}
        n3 = newcomer(cluster, "n3", n2)
        assert (await add(cluster, n3, n2)).status == 200
        await all_vote(cluster, n3, "n1", "n2", "n3")
        assert any(event["event"] == "snapshot installed" for event in n3.events())
        assert (await cluster.get(n3, "k19")).raw == b"v"
