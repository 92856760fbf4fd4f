"""What a run counted, and how it is told. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raftkv.verify.history import Action, Get, List, Operation, Refused

OUTCOMES = ("ok", "refused", "fail", "unknown")


@dataclass(slots=True)
class Report:
    """Of a round, or of several added up."""

    rounds: int = 1
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, outcome)
    faults: Counter[str] = field(default_factory=Counter)  # by kind
    left_out: Counter[str] = field(default_factory=Counter)  # by kind: whom they would hit was busy
    recoveries_s: list[float] = field(default_factory=list)  # from healing until every node answered
    seconds: float = 0.0  # under faults and in the calm between
    verify_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.rounds += other.rounds
        self.operations.update(other.operations)
        self.faults.update(other.faults)
        self.left_out.update(other.left_out)
        self.recoveries_s += other.recoveries_s
        self.seconds += other.seconds
        self.verify_s += other.verify_s
        self.violations += other.violations

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations.total() / self.seconds if self.seconds else 0.0

    def table(self, not_tested: Sequence[str]) -> str:
        kinds = sorted({kind for kind, _ in self.operations})
        lines = [f"{'operations':<14}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES)]
        rows = {kind: [self.operations[kind, outcome] for outcome in OUTCOMES] for kind in kinds}
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)] if rows else [0] * 4
        lines += [f"  {kind:<12}" + "".join(f"{n:>10,}" for n in counts) for kind, counts in rows.items()]
        lines += ["", f"{'faults':<18}{'done':>6}{'left out: all busy':>22}"]
        faults = sorted(self.faults.keys() | self.left_out.keys())
        lines += [f"  {kind:<16}{self.faults[kind]:>6}{self.left_out[kind]:>22}" for kind in faults]
        lines += [f"  {'all':<16}{self.faults.total():>6}{self.left_out.total():>22}", ""]
        worst = max(self.recoveries_s, default=0.0)
        lines.append(f"{self.rounds} rounds, {self.seconds:,.0f} s, {self.rate:.0f} operations a second")
        lines.append(
            f"healed {len(self.recoveries_s)} times; all nodes answered within {worst:.2f} s at worst"
        )
        lines += [f"NOT TESTED HERE: {line}" for line in not_tested]
        lines.append(f"violations: {len(self.violations)}")
        lines += [f"  {violation}" for violation in self.violations]
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """The same, for machines. Times in seconds."""
        operations: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(self.operations.items()):
            operations.setdefault(kind, {})[outcome] = count
        return {
            "rounds": self.rounds,
            "seconds": round(self.seconds, 1),
            "operations": operations,
            "operations_in_all": self.operations.total(),
            "faults": dict(sorted(self.faults.items())),
            "faults_in_all": self.faults.total(),
            "left_out": dict(sorted(self.left_out.items())),
            "healed": len(self.recoveries_s),
            "worst_recovery_s": round(max(self.recoveries_s, default=0.0), 3),
            "verify_s": round(self.verify_s, 1),
            "violations": self.violations,
        }


def kind_of(action: Action) -> str:
    """Of an operation, for the table."""
    name = type(action).__name__.lower()
    match action:
        case Get(stale=True) | List(stale=True):
            return f"stale {name}"
        case Get() | List():
            return name
    return name if getattr(action, "condition", None) is None else f"{name} if"


def outcome_of(operation: Operation) -> str:
    return "refused" if isinstance(operation.result, Refused) else operation.outcome.value
