"""What a run counted, and how it is told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raftkv.verify.history import Action, Get, List, Operation, Refused
from tests.nemesis.recovery import Recovery

OUTCOMES = ("ok", "refused", "fail", "unknown")


@dataclass(slots=True)
class Report:
    """Of a round, or of several added up."""

    rounds: int = 1
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, outcome)
    faults: Counter[str] = field(default_factory=Counter)  # by kind
    left_out: Counter[str] = field(default_factory=Counter)  # by kind: whom they would hit was busy
    workloads: Counter[str] = field(default_factory=Counter)  # what the workloads did (workloads.py)
    changes: Counter[str] = field(default_factory=Counter)  # of members: how they were answered (roster.py)
    recoveries_s: list[float] = field(default_factory=list)  # see recovery.py; the last node's, each time
    slowest_cluster_s: float = 0.0  # from healing until the first node answered
    slowest_start_s: float = 0.0  # of a process, from healing until it served
    load: float = 0.0  # the highest load average (of a minute) after healing
    seconds: float = 0.0  # under faults and in the calm between
    verify_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        self.rounds += other.rounds
        self.operations.update(other.operations)
        self.faults.update(other.faults)
        self.left_out.update(other.left_out)
        self.workloads.update(other.workloads)
        self.changes.update(other.changes)
        self.recoveries_s += other.recoveries_s
        self.seconds += other.seconds
        self.verify_s += other.verify_s
        self.slowest_cluster_s = max(self.slowest_cluster_s, other.slowest_cluster_s)
        self.slowest_start_s = max(self.slowest_start_s, other.slowest_start_s)
        self.load = max(self.load, other.load)
        self.violations += other.violations

    def note_recovery(self, recovery: Recovery, load: float) -> None:
        """The cluster was healed, and how it answered."""
        self.recoveries_s.append(max(recovery.answers_s))
        self.slowest_cluster_s = max(self.slowest_cluster_s, recovery.cluster_s)
        self.slowest_start_s = max(self.slowest_start_s, *recovery.starts_s)
        self.load = max(self.load, load)

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
        lines += ["workloads"] if self.workloads else []
        lines += [f"  {what:<26}{count:>10,}" for what, count in sorted(self.workloads.items())]
        lines += [""] if self.workloads else []
        told = ", ".join(f"{what} {count}" for what, count in sorted(self.changes.items()))
        lines += [f"changes of members: {told}"] if told else []
        worst = max(self.recoveries_s, default=0.0)
        lines.append(f"{self.rounds} rounds, {self.seconds:,.0f} s, {self.rate:.0f} operations a second")
        lines.append(
            f"healed {len(self.recoveries_s)} times; at worst the cluster answered within"
            f" {self.slowest_cluster_s:.2f} s, and every node within {worst:.2f} s of serving"
        )
        machine = f"load average up to {self.load:.1f} on {os.cpu_count()} processors"
        lines.append(
            f"processes that were starting then served within {self.slowest_start_s:.2f} s; {machine}"
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
            "workloads": dict(sorted(self.workloads.items())),
            "changes_of_members": dict(sorted(self.changes.items())),
            "healed": len(self.recoveries_s),
            "slowest_cluster_s": round(self.slowest_cluster_s, 3),
            "worst_recovery_s": round(max(self.recoveries_s, default=0.0), 3),
            "slowest_start_s": round(self.slowest_start_s, 3),
            "load": round(self.load, 1),
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
