"""What clients ask of a machine of level 2, and what they may conclude from the answers.

That each result is the one that the log leads to is seen where it is applied (``reference``); here is that
the answer belongs to the request, and what only those who wait can see: leases that end too early, a token
that gives two answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgpack

from raftkv.consensus.invariants import InvariantBroken
from raftkv.kv.commands import (
    Compare,
    Condition,
    ConditionKind,
    Opcode,
    Relation,
    Target,
    encode_batch_of,
    encode_delete,
    encode_delete_range,
    encode_get,
    encode_grant,
    encode_increment,
    encode_keep_alive,
    encode_once,
    encode_put,
    encode_range,
    encode_revoke,
    encode_txn,
)
from raftkv.kv.history import Compacted
from raftkv.kv.machine import KvMachine
from raftkv.kv.results import (
    DeleteResult,
    IncrementResult,
    LeaseResult,
    Malformed,
    PutResult,
    Reason,
    Rejected,
    TxnResult,
)
from raftkv.sim.plan import FeaturesPlan, Plan
from raftkv.sim.reference import Reference
from raftkv.sim.world import World

CLOCK_SLACK_MS = 3.0  # cluster time is in whole milliseconds, and a turn late
_REMEMBERED = 8
_USED_AGAIN = 77  # a lease's id that clients choose, again and again: no promise outlives one that has ended
_WEIGHTS = {
    "txn": 6,
    "batch": 2,
    "once": 5,
    "put": 4,
    "increment": 2,
    "delete_range": 1,
    "grant": 2,
    "keep_alive": 3,
    "revoke": 1,
}


@dataclass(slots=True)
class Request:
    command: bytes
    floor: int  # the highest revision that anyone had been told when it was first asked
    began_ms: float  # then
    value: bytes | None = None  # that is there if and only if it was applied, and nothing else put
    token: str | None = None
    attempts: int = 0

    @property
    def name(self) -> str:
        return Opcode(msgpack.unpackb(self.command)[0]).name.lower()


@dataclass(slots=True)
class _Renewal:
    """What is known of a lease: it doesn't end before ``until_ms``."""

    until_ms: float = float("-inf")
    ended_ms: float | None = None


@dataclass(slots=True)
class Requests:
    world: World
    plan: Plan
    features: FeaturesPlan
    reference: Reference
    _leases: deque[int] = field(default_factory=lambda: deque([_USED_AGAIN], maxlen=_REMEMBERED))
    _renewals: dict[int, _Renewal] = field(default_factory=dict)
    _again: deque[Request] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _answers: dict[str, Any] = field(default_factory=dict)  # what each token gave
    _puts: int = 0

    def __post_init__(self) -> None:
        self.reference.model.on_lease_end = self._lease_ended

    # -- asking --------------------------------------------------------------------------------------------

    def wants(self) -> bool:
        """Whether the next write is one of these."""
        return self.world.random.random() < self.features.share

    def draw(self, floor: int, known: dict[bytes, int]) -> Request:
        """``known``: the last mod_revision that anyone was told of each key."""
        random = self.world.random
        if self._again and random.random() < 0.3:
            request = self._again.popleft()
            self.world.probes["token repeated"] += 1
        else:
            kind = random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            request = Request(b"", floor, self.world.now_ms)
            if kind == "once":
                self._draw_once(request, random, known)
            else:
                request.command = self._draw(kind, random, known, request)
        request.attempts += 1
        return request

    def _draw_once(self, request: Request, random: Random, known: dict[bytes, int]) -> None:
        kind = random.choice(("txn", "batch", "put", "increment", "increment"))
        command = self._draw(kind, random, known, request)
        request.value = None  # another attempt may be applied
        token = f"t{self._puts}"
        if self._answers and random.random() < 0.1:
            token = random.choice(list(self._answers))  # for another request: to be refused
        else:
            request.token = token
        self._puts += 1
        request.command = encode_once(token, b"%d" % self._puts, command)

    def _draw(self, kind: str, random: Random, known: dict[bytes, int], request: Request) -> bytes:
        match kind:
            case "txn":
                compares = [self._compare(random, known) for _ in range(random.choice((0, 1, 1, 2)))]
                then, otherwise = (
                    [self._operation(random, depth=1) for _ in range(random.randint(least, 4))]
                    for least in (1, 0)
                )
                return encode_txn(compares, then, otherwise)
            case "batch":
                kinds = random.choices(("txn", "put", "increment", "delete_range", "grant"), k=2)
                parts = [self._draw(each, random, known, request) for each in kinds]
                request.value = None
                return encode_batch_of([*parts, encode_delete(self._key(random))])
            case "put":
                request.value = self._value(random)
                return self._put(random, request.value)
            case "increment":
                return self._increment(random)
            case "delete_range":
                return self._delete_range(random)
            case "grant":
                self._puts += 1
                lease = random.choice((0, 0, 0, 1000 + self._puts, _USED_AGAIN))
                return encode_grant(random.choice(self.features.ttl_ms), lease)
            case "keep_alive":
                return encode_keep_alive(self._lease(random))
            case _:
                return encode_revoke(self._lease(random))

    def _operation(self, random: Random, depth: int) -> bytes:
        """Of a transaction."""
        match random.randrange(10):
            case 0 | 1 | 2:
                return self._put(random, self._value(random))
            case 3:
                condition = random.choice((None, None, None, Condition(ConditionKind.EXISTS)))
                return encode_put(self._key(random), self._value(random), None, condition)
            case 4:
                return encode_delete(self._key(random))
            case 5:
                return encode_get(self._key(random))
            case 6:
                limit = random.choice((1, 2, 100))
                flags = {"reverse": random.random() < 0.5, "keys_only": random.random() < 0.3}
                return encode_range(self._key(random), random.choice((None, b"l", b"k3")), limit, **flags)
            case 7 if depth < 3:
                inner = [self._operation(random, depth + 1) for _ in range(random.randint(0, 2))]
                return encode_txn(
                    [Compare(self._key(random), Target.EXISTS, Relation.EQUAL, 1)], inner, inner[:1]
                )
            case 8 if random.random() < 0.3:
                return self._delete_range(random)
            case _:
                return self._increment(random)

    def _put(self, random: Random, value: bytes) -> bytes:
        key = self._key(random)
        match random.randrange(3):
            case 0:
                return encode_put(key, value, ttl_ms=random.choice(self.features.ttl_ms))
            case 1:
                return encode_put(key, value, lease=self._lease(random))
            case _:
                return encode_put(key, value)

    def _increment(self, random: Random) -> bytes:
        """Mostly of keys that are put by nothing else: the others hold no numbers."""
        is_number = random.random() < 0.85
        return encode_increment(b"n%d" % random.randrange(2) if is_number else self._key(random), 3)

    def _delete_range(self, random: Random) -> bytes:
        start = self._key(random)
        return encode_delete_range(start, random.choice((start + b"\xff", b"k3", b"l", None)))

    def _compare(self, random: Random, known: dict[bytes, int]) -> Compare:
        key, target = self._key(random), random.choice(list(Target))
        relation = random.choice((Relation.EQUAL, *Relation))
        operand: int | bytes = known.get(key, 0) if random.random() < 0.7 else random.randrange(4)
        if target is Target.VALUE:
            key, operand = b"n%d" % random.randrange(2), b"%d" % (3 * random.randrange(9))
        elif target is Target.EXISTS:
            operand = random.randrange(2)
        end = random.choice((None, None, None, b"", b"k3"))
        return Compare(key, target, relation, operand, end)

    def _key(self, random: Random) -> bytes:
        return b"k%d" % random.randrange(self.plan.keys)

    def _value(self, random: Random) -> bytes:
        self._puts += 1
        return b"v%d:" % self._puts + bytes(random.randint(0, min(20, self.plan.value_bytes)))

    def _lease(self, random: Random) -> int:
        return random.choice(self._leases)

    # -- answers -------------------------------------------------------------------------------------------

    def ended(self, request: Request, outcome: str) -> None:
        """It has its answer, or its node has died; what has a token may be asked again, of anyone."""
        chance = 0.9 if outcome != "ok" else 0.4
        if request.token is not None and request.attempts < 4 and self.world.random.random() < chance:
            self._again.append(request)

    def judge(self, request: Request, result: Any) -> int:
        """The revision that the answer tells of; 0 for none. Raises ``InvariantBroken``."""
        if request.token is not None:
            known = self._answers.setdefault(request.token, result)
            if known != result:
                raise InvariantBroken(f"the same token gave {known} before")
        command = msgpack.unpackb(request.command)
        if command[0] == Opcode.ONCE:
            if request.token is None:
                if not isinstance(result, Rejected) or result.reason is not Reason.TOKEN_REUSED:
                    raise InvariantBroken("a token is taken for another request")
                self.world.probes["token of another request refused"] += 1
                return result.revision
            command = command[3]
        self._note_leases(request, command, result)
        revision = getattr(result, "revision", 0)
        if not isinstance(result, LeaseResult) and revision < request.floor:
            raise InvariantBroken(f"real time: {request.floor} was acknowledged before it began")
        commands, results = [command], (result,)
        if command[0] == Opcode.BATCH:
            commands, results = command[1], result.results
        for each, its in zip(commands, results, strict=True):
            self._judge_one(request, each, its)
        return int(revision)

    def _judge_one(self, request: Request, command: Sequence[Any], result: Any) -> None:
        """What takes one revision, or none."""
        if isinstance(result, Malformed):
            raise InvariantBroken("no result of this operation")
        if isinstance(result, Rejected):
            self.world.probes[f"rejected: {result.reason}"] += 1
            return
        changed: dict[bytes, bytes | None] = {}
        _add_changes(changed, command, result)
        if not changed:
            return
        if result.revision <= request.floor:
            raise InvariantBroken(f"real time: {request.floor} was acknowledged before it began")
        found = self.reference.changed(result.revision)
        if any(found.get(key) != value for key, value in changed.items()):
            raise InvariantBroken(f"revision {result.revision} is {found!r}, not {changed!r}")

    # -- leases --------------------------------------------------------------------------------------------

    def _note_leases(self, request: Request, command: Sequence[Any], result: Any) -> None:
        """What was granted or renewed lasts a ttl from when it was asked for, by any sound clock."""
        match command, result:
            case _, LeaseResult(lease=lease, ttl_ms=ttl_ms):
                pass
            case [Opcode.PUT, _, _, _, _, 0, ttl_ms], PutResult(lease=lease):
                pass
            case _:
                return
        self._leases.append(lease)
        if lease != _USED_AGAIN:
            renewal = self._renewals.setdefault(lease, _Renewal())
            until_ms = request.began_ms + ttl_ms / (1 + self.plan.clock_drift) - CLOCK_SLACK_MS
            renewal.until_ms = max(renewal.until_ms, until_ms)
            self._check_end(lease, renewal)

    def _lease_ended(self, lease: int) -> None:
        """The first machine applies it now."""
        self.world.probes["lease ended"] += 1
        renewal = self._renewals.setdefault(lease, _Renewal())
        renewal.ended_ms = self.world.now_ms
        self._check_end(lease, renewal)

    def _check_end(self, lease: int, renewal: _Renewal) -> None:
        if renewal.ended_ms is not None and renewal.ended_ms < renewal.until_ms:
            raise InvariantBroken(
                f"lease {lease} ended at {renewal.ended_ms:.0f} ms; it was promised until "
                f"{renewal.until_ms:.0f} ms"
            )

    # -- the past ------------------------------------------------------------------------------------------

    def read_past(self, machine: KvMachine) -> None:
        """At any revision: what the reference has, or that it is gone."""
        history, now = machine.store.history, machine.store.revision
        if history is None or not now:
            return
        random, model = self.world.random, self.reference.model
        revision, key = random.randint(max(0, now - 30), now), self._key(random)
        try:
            item = machine.store.get_at(key, revision)
            page = machine.store.page_at(revision, b"k", random.choice((None, b"l")), 1000)
        except Compacted as compacted:
            if revision >= compacted.oldest:
                raise InvariantBroken(f"{revision} is refused, and {compacted.oldest} kept") from None
            self.world.probes["past compacted"] += 1
            return
        self.world.probes["past read"] += 1
        held = model.at(key, revision)
        if (item.mod_revision, item.value) != held[:2] if item else held.value is not None:
            raise InvariantBroken(f"at {revision} {key!r} was {held}, and is read as {item}")
        then = {each: held[:2] for each, held in model.store_at(revision).items() if each.startswith(b"k")}
        if {each: (row.mod_revision, row.value) for each, row in page.items if each < b"l"} != then:
            raise InvariantBroken(f"at {revision} the keys were {then}, and are read as {page.items}")


def _add_changes(changed: dict[bytes, bytes | None], command: Sequence[Any], result: Any) -> None:
    """What must be in the revision of ``result``, as far as the answer tells it."""
    match command, result:
        case [Opcode.PUT, key, value, *_], PutResult():
            changed[key] = value
        case [Opcode.INCREMENT, key, _], IncrementResult(value=value):
            changed[key] = b"%d" % value
        case [Opcode.DELETE, key, _], DeleteResult():
            changed.pop(key, None)  # whether it shows depends on what was there before
        case [Opcode.DELETE_RANGE, *_], DeleteResult():
            changed.clear()
        case [Opcode.TXN, _, then, otherwise], TxnResult(succeeded=succeeded, results=results):
            for each, its in zip(then if succeeded else otherwise, results, strict=True):
                _add_changes(changed, each, its)
        case _:
            pass
