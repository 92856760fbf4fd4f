"""``raftkv bench``: what a cluster does for clients like this one.

They are Python, and take their share of the machine if it is one of the cluster's: ``scripts/bench`` measures
nodes by wrk.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import click

from raftkv.cli.options import duration, endpoints_option, output_option, timeout_option
from raftkv.cli.output import Failure, NoMajority, print_json
from raftkv.client import Endpoint
from raftkv.errors import RaftkvError
from raftkv.sdk.client import AsyncClient


@dataclass(slots=True)
class Load:
    """What the clients do, and what became of it: seconds by operation, failed requests by their code."""

    prefix: str
    reads: int
    keys: int
    value: bytes
    consistency: str
    times_s: dict[str, list[float]] = field(default_factory=lambda: {"put": [], "get": []})
    errors: Counter[str] = field(default_factory=Counter)
    numbers: count[int] = field(default_factory=count)

    async def work(self, client: AsyncClient, until_s: float) -> None:
        """One operation after the other. The first ones write all keys."""
        while (began_s := time.perf_counter()) < until_s:
            number = next(self.numbers)
            key = f"{self.prefix}{number % self.keys}"
            kind = "get" if number >= self.keys and number % 100 < self.reads else "put"
            try:
                if kind == "get":
                    await client.get(key, consistency=self.consistency)
                else:
                    await client.put(key, self.value)
            except RaftkvError as error:
                self.errors[error.code] += 1
            else:
                self.times_s[kind].append(time.perf_counter() - began_s)


@click.command()
@click.option("--time", "time_s", callback=duration, default="5s", show_default=True, metavar="DURATION")
@click.option("--clients", type=click.IntRange(1, 1000), default=16, show_default=True, help="At a time.")
@click.option("--reads", type=click.IntRange(0, 100), default=50, show_default=True, help="Percent.")
@click.option("--keys", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--value-bytes", type=click.IntRange(0, 1 << 20), default=64, show_default=True)
@click.option(
    "--consistency",
    type=click.Choice(["linearizable", "lease", "stale"]),
    default="linearizable",
    show_default=True,
    help="Of the reads.",
)
@endpoints_option
@timeout_option("10s", "How long one request may take, all attempts together.")
@output_option
def bench(
    *,
    time_s: float,
    clients: int,
    reads: int,
    keys: int,
    value_bytes: int,
    consistency: str,
    endpoints: Sequence[Endpoint],
    timeout_s: float,
    output: str,
) -> None:
    """Put and get for a while through all endpoints; say how many a second, and how long they took.

    Its keys begin with raftkv-bench/ and are deleted at the end.
    """
    load = Load(f"raftkv-bench/{secrets.token_hex(4)}/", reads, keys, b"x" * value_bytes, consistency)
    urls = [str(each) for each in endpoints]
    turned = [[*urls[i:], *urls[:i]] for i in range(len(urls))]
    try:
        lasted_s = asyncio.run(_play(load, turned, timeout_s, clients, time_s))
    except RaftkvError as error:
        raise (NoMajority if error.code == "no_quorum" else Failure)(error.detail) from None
    found = {kind: _summary(times_s, lasted_s) for kind, times_s in load.times_s.items() if times_s}
    if output == "json":
        print_json({"seconds": round(lasted_s, 3), **found, "errors": dict(load.errors)})
    else:
        for kind, summary in found.items():
            click.echo(
                f"{kind}  {summary['per_second']:,.0f}/s  p50 {summary['p50_ms']:.2f} ms"
                f"  p99 {summary['p99_ms']:.2f} ms  max {summary['max_ms']:.2f} ms"
            )
    if load.errors:
        told = ", ".join(f"{number} {code}" for code, number in load.errors.most_common())
        raise Failure(f"{load.errors.total()} requests failed: {told}")


async def _play(
    load: Load, turned: Sequence[Sequence[str]], timeout_s: float, clients: int, time_s: float
) -> float:
    """How long it took, in seconds. Raises ``RaftkvError`` where the cluster can't be written to at all."""
    several = [AsyncClient(urls, timeout=timeout_s, learn=False) for urls in turned]
    try:
        await several[0].put(f"{load.prefix}0", load.value)
        began_s = time.perf_counter()
        until_s = began_s + time_s
        await asyncio.gather(*(load.work(several[i % len(several)], until_s) for i in range(clients)))
        lasted_s = time.perf_counter() - began_s
        await several[0].delete_range(prefix=load.prefix)
        return lasted_s
    finally:
        for client in several:
            await client.close()


def _summary(times_s: list[float], lasted_s: float) -> dict[str, float]:
    ordered = sorted(times_s)
    return {
        "requests": len(ordered),
        "per_second": round(len(ordered) / lasted_s, 1),
        "p50_ms": round(ordered[len(ordered) // 2] * 1e3, 3),
        "p99_ms": round(ordered[len(ordered) * 99 // 100] * 1e3, 3),
        "max_ms": round(ordered[-1] * 1e3, 3),
    }
