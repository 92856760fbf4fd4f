"""Which node is asked, what is asked again, and what is raised in the end."""

from __future__ import annotations

import pytest

from raftkv import AsyncClient, Outcome, RaftkvError, Unreachable
from raftkv.errors import ConditionFailed, NoQuorum
from tests.sdk.stub import HANGS, LOST, Answer, Stub, problem, until

PUT = Answer({"key": "k", "revision": 7, "version": 1, "created": True}, 201)
# NB: aiohttp itself repeats a request once where a connection is lost: [LOST, LOST] is one answer lost.
NOBODY = "http://127.0.0.1:1"  # nobody listens there


async def test_a_write_whose_answer_is_lost_is_asked_again_under_the_same_key() -> None:
    async with Stub([LOST, LOST]) as one, Stub([PUT]) as two, AsyncClient([one.url, two.url]) as client:
        assert (await client.put("k", "v")).revision == 7
        first, second = one.requests[0], two.requests[0]
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] != ""
        assert (first.method, first.path, first.body) == (second.method, second.path, second.body)


async def test_each_write_has_a_key_of_its_own_but_where_one_is_given() -> None:
    async with Stub([PUT]) as node, AsyncClient(node.url) as client:
        await client.put("k", "v")
        await client.put("k", "v")
        await client.put("k", "v", idempotency_key="mine")
        first, second, third = (request.headers["Idempotency-Key"] for request in node.requests)
        assert first != second
        assert third == "mine"


async def test_without_keys_a_write_whose_answer_is_lost_is_not_asked_again() -> None:
    async with (
        Stub([PUT, LOST]) as one,
        Stub([PUT]) as two,
        AsyncClient([one.url, two.url], idempotent=False) as client,
    ):
        await client.put("k", "v")  # a connection that could be kept, and found broken
        with pytest.raises(Unreachable) as caught:
            await client.put("k", "v")
        assert caught.value.outcome == Outcome.UNKNOWN
        assert len(one.requests) == 2
        assert not two.requests
        assert "Idempotency-Key" not in one.requests[0].headers


async def test_without_keys_an_answer_that_leaves_it_open_is_raised() -> None:
    async with (
        Stub([problem(504, "timeout", "unknown")]) as one,
        Stub([PUT]) as two,
        AsyncClient([one.url, two.url], idempotent=False) as client,
    ):
        with pytest.raises(RaftkvError, match="it is timeout") as caught:
            await client.put("k", "v")
        assert caught.value.outcome == Outcome.UNKNOWN
        assert not two.requests


async def test_what_did_not_happen_is_asked_of_the_next_node_even_without_keys() -> None:
    async with (
        Stub([problem(503, "no_quorum")]) as one,
        Stub([PUT]) as two,
        AsyncClient([NOBODY, one.url, two.url], idempotent=False) as client,
    ):
        assert (await client.put("k", "v")).revision == 7
        assert len(one.requests) == 1
        await client.put("k", "v")  # the one that answered stays the one that is asked
        assert len(one.requests) == 1


async def test_a_refusal_that_is_the_same_anywhere_is_raised_as_its_class() -> None:
    refused = problem(412, "condition_failed", mod_revision=5)
    async with Stub([refused]) as one, Stub([PUT]) as two, AsyncClient([one.url, two.url]) as client:
        with pytest.raises(ConditionFailed, match="it is condition_failed") as caught:
            await client.put("k", "v", if_revision=4)
        assert caught.value.extra == {"mod_revision": 5}
        assert caught.value.outcome == Outcome.NOT_APPLIED
        assert one.requests[0].query["if_revision"] == "4"
        assert not two.requests


async def test_an_unknown_code_keeps_its_status_and_code() -> None:
    async with Stub([problem(418, "teapot")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(RaftkvError, match="it is teapot") as caught:
            await client.get("k")
        assert (caught.value.status, caught.value.code) == (418, "teapot")
        assert RaftkvError.status == 500  # the class is as it was


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ([problem(503, "no_quorum")], Outcome.NOT_APPLIED),
        (
            [LOST, LOST, problem(503, "no_quorum")],
            Outcome.UNKNOWN,
        ),  # what the last one says is of its attempt
    ],
)
async def test_when_the_time_is_up_any_attempt_that_is_open_counts(
    steps: list[Answer | str], outcome: Outcome
) -> None:
    async with Stub(list(steps)) as node, AsyncClient(node.url, timeout=0.3) as client:
        with pytest.raises(RaftkvError) as caught:
            await client.put("k", "v")
        assert caught.value.outcome == outcome
        assert len(node.requests) > 1


async def test_reads_that_fail_are_never_of_unknown_outcome_for_their_caller() -> None:
    async with (
        Stub([LOST, LOST, problem(503, "no_quorum")]) as node,
        AsyncClient(node.url, timeout=0.3) as client,
    ):
        with pytest.raises(NoQuorum) as caught:
            await client.get("k")
        assert caught.value.outcome == Outcome.NOT_APPLIED


async def test_a_store_that_is_full_does_not_say_what_became_of_an_earlier_attempt() -> None:
    async with Stub([LOST, LOST, problem(507, "quota_exceeded")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(RaftkvError, match="quota") as caught:
            await client.put("k", "v")
        assert caught.value.outcome == Outcome.UNKNOWN


async def test_a_node_that_hangs_leaves_time_for_the_next() -> None:
    async with (
        Stub([HANGS]) as one,
        Stub([PUT]) as two,
        AsyncClient([one.url, two.url], timeout=2.0) as client,
    ):
        assert (await client.put("k", "v")).revision == 7
        told_ms = [int(node.requests[0].query["timeout"].removesuffix("ms")) for node in (one, two)]
        assert 0 < told_ms[1] < told_ms[0] < 1000  # half of what is left, with time for the answer


async def test_members_that_were_not_given_are_learned_and_asked() -> None:
    async with Stub([PUT]) as one, Stub([PUT]) as two, AsyncClient(one.url, timeout=5.0) as client:
        one.members = [one.url, two.url]
        await client.put("k", "v")
        await until(lambda: len(client.endpoints) == 2)
        await one.close()
        await client.put("k", "v")
        assert len(two.requests) == 1


async def test_members_are_not_asked_where_only_those_given_may_be() -> None:
    async with (
        Stub([PUT]) as one,
        Stub([PUT]) as two,
        AsyncClient(one.url, timeout=0.3, learn=False) as client,
    ):
        one.members = [one.url, two.url]
        await client.put("k", "v")
        await one.close()
        with pytest.raises(Unreachable):
            await client.put("k", "v")
        assert client.endpoints == (one.url,)


async def test_who_is_no_node_is_said_to_be_none() -> None:
    html = Answer({}, 200, "text/html")
    async with Stub([html]) as node, AsyncClient(node.url) as client:
        with pytest.raises(KeyError):
            await client.put("k", "v")
    async with Stub([Answer({}, 500, "text/html")]) as node, AsyncClient(node.url) as client:
        with pytest.raises(RaftkvError, match="is it a raftkv node") as caught:
            await client.get("k")
        assert caught.value.code == "bad_answer"


async def test_a_closed_client_says_so() -> None:
    client = AsyncClient(NOBODY)
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("k")


@pytest.mark.parametrize("text", ["", "ftp://x", "http://x/path", "http://", "http://x:port"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        AsyncClient(text)


@pytest.mark.parametrize("dead_first", [True, False])
async def test_a_node_that_says_why_is_heard_though_others_do_not_answer_at_all(dead_first: bool) -> None:
    async with Stub([problem(503, "no_quorum")]) as one:
        endpoints = [NOBODY, one.url] if dead_first else [one.url, NOBODY]
        async with AsyncClient(endpoints, timeout=1.0) as client:
            with pytest.raises(NoQuorum):
                await client.get("k")
