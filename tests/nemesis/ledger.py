"""Transactions: money is moved between accounts, and things are counted.

Each transaction has an id, which it leaves in a key of its client at the same revision. So the record of the
cluster shows which were done, and when: each once at most, those that were acknowledged at the revision that
was told, and all of each or nothing. Those with an idempotency key are repeated through other nodes, whatever
became of them, and must be answered alike. What is moved leaves the sum as it is: whoever reads all accounts
at one revision sees that.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from raftkv.verify.history import Outcome
from tests.cluster.harness import Cluster
from tests.nemesis.notes import PREFIX, Moments, Note, of
from tests.nemesis.record import Change, Record
from tests.nemesis.roaming import Worker

ACCOUNTS = [f"{PREFIX}account/{number}" for number in range(6)]
COUNTERS = [f"{PREFIX}counter/{number}" for number in range(2)]
MARKS = f"{PREFIX}done/"
BALANCE = 100
THINK_S = 0.04
MAX_ATTEMPTS = 6
REPEATED_ANYWAY = 0.2
SET_UP = "set-up"

Legs = Mapping[str, int]
"""Key -> what is added to it."""


def transaction(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The document of ``asked``: its legs and mark, if the key ``known[0]`` was last changed at ``known[1]``;
    else all accounts are read.
    """
    known = asked.get("known")
    increments = [{"increment": {"key": key, "by": by}} for key, by in asked["legs"].items()]
    return {
        "if": [{"key": known[0], "target": "mod_revision", "value": known[1]}] if known else [],
        "then": [*increments, {"put": {"key": mark_of(asked["id"]), "value": asked["id"]}}],
        "else": [{"get": {"prefix": f"{PREFIX}account/"}}],
    }


def mark_of(name: str) -> str:
    return f"{MARKS}{name.rpartition('-')[0]}"


async def set_up(cluster: Cluster) -> Note:
    """The accounts, at revision 1. Waits until the cluster can do transactions. Raises AssertionError."""
    asked = {"id": f"{SET_UP}-0", "legs": dict.fromkeys(ACCOUNTS, BALANCE)}
    done: list[Note] = []

    async def is_done() -> bool:
        call = time.monotonic()
        leader = await cluster.leader()
        reply = await cluster.request(
            "POST", leader, "/v1/txn", json=transaction(asked), headers={"Idempotency-Key": SET_UP}
        )
        if reply.status == 200:
            done.append(Note(SET_UP, "txn", call, time.monotonic(), Outcome.OK, 200, asked, reply.body))
        return bool(done)

    await cluster.until(is_done, "the accounts are set up")
    return done[0]


class Clerk(Worker):
    """Moves, counts, and reads all accounts."""

    _done = 0

    async def run(self, stopping: asyncio.Event) -> None:
        modified: dict[str, int] = {}
        revision = 0
        while not stopping.is_set():
            draw = self.chance.random()
            if draw < 0.35:
                note = await self._move(modified)
            elif draw < 0.65:
                note = await self._count()
            else:
                note = await self._read(revision)
                for item in note.body.get("items", []):
                    modified[item["key"]] = item["mod_revision"]
                revision = max(revision, note.revision or 0)
            await self.go_on(failed=not note.done, think_s=THINK_S)
        self.close()

    def _new_id(self) -> str:
        self._done += 1
        return f"{self.name}-{self._done}"

    async def _move(self, modified: Mapping[str, int]) -> Note:
        giver, taker = self.chance.sample(ACCOUNTS, 2)
        by = self.chance.randint(1, 30)
        asked: dict[str, Any] = {"id": self._new_id(), "legs": {giver: -by, taker: by}}
        if giver in modified and self.chance.random() < 0.6:
            asked["known"] = [giver, modified[giver]]
        if self.chance.random() < 0.5:
            return await self._insist(asked)
        return await self.ask("txn", "POST", "/v1/txn", transaction(asked), asked=asked)

    async def _count(self) -> Note:
        return await self._insist({"id": self._new_id(), "legs": {self.chance.choice(COUNTERS): 1}})

    async def _insist(self, asked: dict[str, Any]) -> Note:
        """With an idempotency key, again and again until it is answered, and perhaps once more."""
        headers = {"Idempotency-Key": asked["id"]}
        for _ in range(MAX_ATTEMPTS):
            note = await self.ask("txn", "POST", "/v1/txn", transaction(asked), headers=headers, asked=asked)
            if note.done and self.chance.random() >= REPEATED_ANYWAY:
                break
            self.move()
        return note

    async def _read(self, revision: int) -> Note:
        query = {"prefix": f"{PREFIX}account/"}
        draw = self.chance.random()
        asked: dict[str, Any] = {}
        if draw < 0.3:
            query["consistency"] = "stale"
            asked["stale"] = True
        elif draw < 0.5 and revision > 1:
            asked["at"] = self.chance.randint(1, revision)
            query["revision"] = str(asked["at"])
        return await self.ask("total", "GET", "/v1/kv", query=query, asked=asked)


# -- the judge ---------------------------------------------------------------------------------------------


def judge(notes: Sequence[Note], record: Record, moments: Moments) -> list[str]:
    """What is wrong, in words."""
    by_id: defaultdict[str, list[Note]] = defaultdict(list)
    for note in of(notes, "txn"):
        by_id[note.asked["id"]].append(note)
    marked: defaultdict[str, list[int]] = defaultdict(list)
    for change in record.changes:
        if change.key.startswith(MARKS) and change.value is not None:
            marked[change.value].append(change.revision)
    complaints = []
    for name, attempts in by_id.items():
        complaints += _judge_one(attempts, marked.pop(name, []), record, moments)
    complaints += [f"nobody asked for {name}, done at {revisions}" for name, revisions in marked.items()]
    complaints += _unmarked(record)
    for note in of(notes, "total"):
        complaints += _judge_total(note, record, moments)
    return complaints


def _judge_one(
    attempts: Sequence[Note], revisions: Sequence[int], record: Record, moments: Moments
) -> list[str]:
    """``attempts`` at one transaction, which is found done at ``revisions``."""
    first, answers = attempts[0], [note for note in attempts if note.done]
    asked, name = first.asked, first.asked["id"]
    if len(revisions) > 1:
        return [f"{name} was done at {revisions}"]
    if any(answer.body != answers[0].body for answer in answers):
        return [f"{name} was answered differently: {[answer.body for answer in answers]}"]
    told = {answer.revision for answer in answers if answer.body["succeeded"]}
    if told and told != set(revisions):
        return [f"{name} was acknowledged at {told}, and is found at {revisions}"]
    if answers and not told and revisions:
        return [f"{name} was told as not done, and is found at {revisions}"]
    if not revisions and not answers:
        return []
    if revisions and all(note.outcome is Outcome.FAIL for note in attempts):
        return [f"{name} was told as never done, and is found at {revisions}"]
    return [
        f"{name}: {what}"
        for what in (
            *(_done_as_asked(asked, revisions[0], record, moments, first.call) if revisions else ()),
            *(_answer_fits(answers[0], record, moments, first.call) if answers else ()),
        )
    ]


def _done_as_asked(
    asked: Mapping[str, Any], revision: int, record: Record, moments: Moments, call: float
) -> list[str]:
    complaints = []
    expected = {key: (_number(record.at(key, revision - 1)) + by) for key, by in asked["legs"].items()}
    found = {change.key: change.value for change in record.of_revision[revision]}
    if found != {**{key: str(value) for key, value in expected.items()}, mark_of(asked["id"]): asked["id"]}:
        complaints.append(f"revision {revision} is {found}, where {expected} was asked for")
    if not _holds(asked, revision - 1, record):
        complaints.append(f"done at {revision}, though its condition {asked['known']} did not hold")
    if moments.known_at(revision) < call:
        complaints.append(f"revision {revision} was seen before it was asked for")
    return complaints


def _answer_fits(answer: Note, record: Record, moments: Moments, call: float) -> list[str]:
    revision, body = answer.revision or 0, answer.body
    before = moments.told_before(call)
    if revision < before or (body["succeeded"] and revision == before):
        return [f"is of revision {revision}, but {before} was told before it was asked for"]
    if not body["succeeded"]:
        complaints = _fits(body["results"][0]["get"]["items"], revision, record)
        if _holds(answer.asked, revision, record):
            complaints.append(f"refused at {revision}, though its condition held")
        return complaints
    told = [(each["increment"]["value"], each["increment"]["version"]) for each in body["results"][:-1]]
    found = [record.at(key, revision) for key in answer.asked["legs"]]
    expected = [(_number(change), change.version if change else 0) for change in found]
    return [] if told == expected else [f"was answered {told} at {revision}, and there is {expected}"]


def _holds(asked: Mapping[str, Any], revision: int, record: Record) -> bool:
    if "known" not in asked:
        return True
    key, modified = asked["known"]
    found = record.at(key, revision)
    return bool(modified == (found.revision if found else 0))


def _unmarked(record: Record) -> list[str]:
    """Changes of accounts and counters in which no transaction left its id."""
    complaints = []
    for revision, changes in record.of_revision.items():
        keys = {change.key for change in changes}
        if keys & {*ACCOUNTS, *COUNTERS} and not any(key.startswith(MARKS) for key in keys):
            complaints.append(f"no transaction did revision {revision}: {changes}")
    return complaints


def _judge_total(note: Note, record: Record, moments: Moments) -> list[str]:
    if not note.done:
        return []
    items, revision = note.body["items"], note.asked.get("at", note.revision or 0)
    complaints = _fits(items, revision, record)
    total = sum(int(item["value"]) for item in items)
    if total != BALANCE * len(ACCOUNTS) and (revision or "stale" not in note.asked):
        complaints.append(f"all accounts together have {total} at revision {revision}")
    before = moments.told_before(note.call)
    if not note.asked and revision < before:
        complaints.append(f"an answer of revision {revision}, but {before} was told before it was asked for")
    return complaints


def _fits(items: Sequence[Mapping[str, Any]], revision: int, record: Record) -> list[str]:
    """Of all accounts, as read at ``revision``."""
    told = {item["key"]: (item["value"], item["mod_revision"], item["version"]) for item in items}
    there = {key: record.at(key, revision) for key in ACCOUNTS}
    expected = {
        key: (change.value, change.revision, change.version) for key, change in there.items() if change
    }
    return [] if told == expected else [f"read {told} at revision {revision}, where there is {expected}"]


def _number(change: Change | None) -> int:
    return int(change.value) if change is not None and change.value is not None else 0


def figures(notes: Sequence[Note]) -> Counter[str]:
    attempts = Counter(note.asked["id"] for note in of(notes, "txn"))
    done = {note.asked["id"]: note.body["succeeded"] for note in of(notes, "txn") if note.done}
    return Counter(
        {
            "transactions done": sum(done.values()),
            "transactions refused": sum(not each for each in done.values()),
            "transactions repeated": sum(attempts[name] > 1 for name in done),
            "totals read": sum(note.done for note in of(notes, "total")),
        }
    )
