"""One round: a new cluster, its clients, the planned faults, and the verdict.

Rules: all that a round finds wrong is a line in ``Report.violations``; it goes on after one, so that the
whole history is there to look at. Processes, mounts and namespaces end with the round, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from raftkv import verify
from raftkv.verify import report as pictures
from raftkv.verify import write_history
from raftkv.verify.history import History
from tests.cluster.abilities import mount, unmount
from tests.cluster.harness import DEADLINE_S, Cluster, Node, end
from tests.nemesis import leases, ledger, workloads
from tests.nemesis.diary import Diary
from tests.nemesis.figures import Report, kind_of, outcome_of
from tests.nemesis.judge import Listing, equal_states, missing
from tests.nemesis.links import Links, namespaces, relays
from tests.nemesis.notes import PREFIX, Moments, read_notes, sightings
from tests.nemesis.pace import pause
from tests.nemesis.places import make_places
from tests.nemesis.plan import Ability, Fault, Window
from tests.nemesis.record import Record, contradictions, read_records
from tests.nemesis.recovery import ANSWERS_WITHIN_S, recovered
from tests.nemesis.roster import Roster
from tests.nemesis.torment import Torment

CLIENT_PROCESSES = 2
STOP_DEADLINE_S = 15.0
SMALL_DISK = "96m"
DIARY = "nemesis.log"
NOTES = "workloads.notes.jsonl"
THE_END = f"{PREFIX}the-end".replace("/", "%2F")
# Small segments, so that a round's log has many; and a snapshot every few seconds, so that whoever was away
# for long needs one.
OPTIONS = (
    *("--cluster-name", "nemesis", "--segment-bytes", str(256 << 10)),
    *("--snapshot-bytes", str(256 << 10), "--snapshot-margin-bytes", str(16 << 10)),
)
VERIFY_TIMEOUT_S = 300.0

# How the violations begin that the clients' own records show.
BY_CLIENTS = (
    "the history is ",
    "lost: ",
    "the end is not reached: ",
    *(f"{name}: " for name in workloads.JUDGED),
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """``directory`` must exist, on a real disk; ``plant``: a bug's name (``planted.NAMES``)."""

    directory: Path
    seed: int
    nodes: int
    in_namespaces: bool
    abilities: frozenset[Ability]
    clients: int = 24
    think_ms: float = 15.0
    plant: str | None = None
    lease_ms: int = 0  # of the nodes


async def play(settings: Settings, windows: Sequence[Window], say: Say) -> Report:
    report = Report()
    probes: History = []
    directory = settings.directory
    processes = _client_processes(settings)
    async with _cluster(settings) as (cluster, torment):
        for node in cluster.nodes:
            torment.start(node)
        notes = [await ledger.set_up(cluster)]
        began = time.monotonic()
        async with _clients(processes, torment.roster, report):
            for window in windows:
                say(await _play_window(window, torment, cluster.nodes, report, probes))
        report.seconds = time.monotonic() - began
        unequal, state, listings, record = await _at_the_end(cluster)
        torment.look_for_deaths()
    report.violations += [*torment.violations, *unequal]
    everyone = torment.roster.everyone
    report.violations += [f"logged: {line}" for node in everyone for line in node.mistakes()]
    report.faults, report.left_out = torment.done, torment.left_out
    report.changes = torment.roster.figures
    history = [*_read([process.history for process in processes]), *probes, *listings]
    notes += read_notes(directory / NOTES)
    report.operations.update((kind_of(o.action), outcome_of(o)) for o in history)
    report.workloads = workloads.figures(notes)
    with (directory / "history.jsonl").open("w", encoding="utf-8") as whole:
        whole.writelines(write_history(history))
    began = time.monotonic()
    report.violations += [f"{BY_CLIENTS[1]}{line}" for line in missing(history, state)] if state else []
    if record is None:
        return report
    moments = Moments(sightings(history, notes))
    report.violations += [f"{BY_CLIENTS[1]}{line}" for line in contradictions(record, history, moments)]
    for name, complaints in workloads.complaints(notes, record, moments).items():
        report.violations += [f"{name}: {line}" for line in complaints]
    verdict = verify.check(history, timeout_s=VERIFY_TIMEOUT_S, others=record.others())
    report.verify_s = time.monotonic() - began
    if not verdict:
        (directory / "picture.html").write_text(pictures.page(history, verdict), encoding="utf-8")
        (directory / "picture.txt").write_text(pictures.text(history, verdict), encoding="utf-8")
        report.violations.append(f"{BY_CLIENTS[0]}{verdict.answer.value}: {verdict.reason}")
    return report


async def _at_the_end(cluster: Cluster) -> tuple[list[str], Listing, History, Record | None]:
    """Once all leases have ended: what differs, the state, the reads it took, and the record. Without that
    only the state is judged.
    """
    try:
        await leases.all_gone(cluster)
        last = (await cluster.put(cluster.nodes[0], THE_END, "", "?timeout=10s")).body["revision"]
    except (AssertionError, aiohttp.ClientError, TimeoutError, KeyError) as error:
        return [f"{BY_CLIENTS[2]}{error!r}"], {}, [], None
    unequal, state, listings = await equal_states(cluster)
    if not state:
        return unequal, state, listings, None
    try:
        record, differing = await read_records(cluster.nodes, last)
    except AssertionError as error:
        return [*unequal, str(error)], state, listings, None
    return [*unequal, *(f"{BY_CLIENTS[1]}{line}" for line in differing)], state, listings, record


async def _play_window(
    window: Window, torment: Torment, nodes: Sequence[Node], report: Report, probes: History
) -> str:
    """All its faults, each to its end; then the cluster must answer; then a calm time. Says what was done."""
    began = time.monotonic()
    done: list[str] = []

    async def inflict(fault: Fault) -> None:
        await pause(max(0.0, began + fault.at_s - time.monotonic()))
        try:
            hit = await torment.inflict(fault)
        except (AssertionError, TimeoutError) as error:
            report.violations.append(f"{fault}: {error}")
            return
        if hit is not None:
            done.append(f"{fault.kind} {hit}")

    async with asyncio.TaskGroup() as group:
        for fault in window.faults:
            group.create_task(inflict(fault))
    torment.look_for_deaths()
    torment.diary.note("healed")
    recovery = await recovered(nodes, probes)
    torment.diary.note(f"all answered: {recovery}")
    load = os.getloadavg()[0]
    report.note_recovery(recovery, load)
    if not recovery.sound:
        late = f"not all answered within {ANSWERS_WITHIN_S:g} s of healing: {recovery}"
        report.violations.append(f"{late}; load average {load:.1f}")
    await pause(window.calm_s)
    answered = (
        f"the cluster answered within {recovery.cluster_s:.2f} s, all within {max(recovery.answers_s):.2f} s"
    )
    return f"  {', '.join(done)}; {answered} of serving"


@asynccontextmanager
async def _cluster(settings: Settings) -> AsyncIterator[tuple[Cluster, Torment]]:
    """Everything in place, nothing started."""
    directory = settings.directory
    places = make_places(directory, settings.nodes + 1)
    roster = Roster(directory, places, (*OPTIONS, "--lease-ms", str(settings.lease_ms)))
    async with AsyncExitStack() as stack:
        small_disk = None
        if Ability.MOUNT in settings.abilities:
            small_disk = places[settings.nodes - 1]
            small_disk.disk = directory / "small"
            assert mount(small_disk.disk, SMALL_DISK) is None
            stack.callback(unmount, small_disk.disk)
        links: Links
        if settings.in_namespaces:
            links = await stack.enter_async_context(namespaces(f"nm{os.getpid()}", places))
        else:
            links = await stack.enter_async_context(relays(places))
        roster.found(
            settings.nodes,
            ("raftkv",) if settings.plant is None else ("tests.nemesis.planted", settings.plant),
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(DEADLINE_S)
            )
        )
        stack.callback(end, roster.everyone)
        cluster = Cluster(roster.members, session, directory)
        yield cluster, Torment(cluster, roster, links, small_disk, Diary(directory / DIARY))


@dataclass(frozen=True, slots=True)
class ClientProcess:
    module: str
    options: Mapping[str, str]
    history: Path

    @property
    def errors(self) -> Path:
        return self.history.with_suffix(".err")


def _client_processes(settings: Settings) -> list[ClientProcess]:
    directory, seed = settings.directory, str(settings.seed)
    files = [directory / f"clients-{number}.jsonl" for number in range(CLIENT_PROCESSES)]
    each = str(max(1, settings.clients // len(files)))
    think = {"--think-ms": str(settings.think_ms), "--clients": each}
    singles = [
        ClientProcess("tests.nemesis.clients", {"--name": f"c{number}", "--seed": seed, **think}, file)
        for number, file in enumerate(files)
    ]
    options = {"--seed": seed, "--notes": str(directory / NOTES)}
    return [*singles, ClientProcess("tests.nemesis.workloads", options, directory / "workloads.jsonl")]


@asynccontextmanager
async def _clients(clients: Sequence[ClientProcess], roster: Roster, report: Report) -> AsyncIterator[None]:
    """Processes of clients that ask whoever is a member, or is to be one, and record until this is left."""
    with ExitStack() as stack:
        processes: list[asyncio.subprocess.Process] = []

        def addresses() -> str:
            return ",".join(f"{node.host}:{node.port}" for node in roster.members)

        def tell() -> None:
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{addresses()}\n".encode())

        for client in clients:
            options = {"--nodes": addresses(), "--history": str(client.history), **client.options}
            command = [sys.executable, "-m", client.module, *(p for o in options.items() for p in o)]
            errors = stack.enter_context(client.errors.open("wb"))
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True
            )
            processes.append(process)
            stack.callback(_kill, process)
        roster.on_moved = tell
        yield
        roster.on_moved = lambda: None
        for process, client in zip(processes, clients, strict=True):
            assert process.stdin is not None
            process.stdin.close()
            code = await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
            if code:
                said = client.errors.read_text(errors="replace")
                report.violations.append(f"clients ended with exit code {code}: {said[-1000:]}")


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


def _read(files: Sequence[Path]) -> History:
    history: History = []
    for file in files:
        with file.open(encoding="utf-8") as lines:
            history += verify.read_history(lines)
    return history
