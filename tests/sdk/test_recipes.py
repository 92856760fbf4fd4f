"""The programs of docs/recipes.md, run as they are printed; only the times after which somebody counts as
dead, and the addresses, are this test's own.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftkv import Client
from raftkv.testing import LocalCluster

pytestmark = pytest.mark.cluster

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
PARTS = {
    part.partition("\n")[0]: re.findall(r"```(\w+)\n(.*?)```", part, re.DOTALL)
    for part in TEXT.split("\n## ")[1:]
}
DEADLINE_S = 30.0
SHORTER = {"TTL_S = 10": "TTL_S = 1.5", "PERIOD_S = 60": "PERIOD_S = 1", "PAUSE_S = 1.0": "PAUSE_S = 0.05"}


def blocks(part: str, kind: str) -> list[str]:
    return [text for named, text in PARTS[part] if named == kind]


class Program:
    """One of them under way."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line of its output in which ``pattern`` is found; those before it are passed over."""
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while text := (await self.process.stdout.readline()).decode():
                self.said.append(text)
                if found := re.search(pattern, text):
                    return found
        raise AssertionError(f"it ended, and did not say {pattern!r}: {''.join(self.said)}")

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    async def ends(self, text: str = "") -> tuple[int, str]:
        """Its exit code when it ends, and what it said until then; ``text`` is the end of its input."""
        async with asyncio.timeout(DEADLINE_S):
            rest, _ = await self.process.communicate(text.encode())
        assert self.process.returncode is not None
        return self.process.returncode, rest.decode()


class Stage:
    """Starts programs, and ends those that still run."""

    def __init__(self, endpoints: str) -> None:
        self._environment = {**os.environ, "RAFTKV_ENDPOINTS": endpoints}
        self._programs: list[Program] = []

    async def start(self, text: str, *arguments: str) -> Program:
        for printed, own in SHORTER.items():
            text = text.replace(printed, own)
        return await self.run(sys.executable, "-c", text, *arguments)

    async def run(self, *command: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env=self._environment
        )
        self._programs.append(Program(process))
        return self._programs[-1]

    async def close(self) -> None:
        for program in self._programs:
            if program.process.returncode is None:
                program.process.kill()
        for program in self._programs:
            await program.process.communicate()


@pytest.fixture
async def stage(raftkv_endpoints: str) -> AsyncIterator[Stage]:
    stage = Stage(raftkv_endpoints)
    try:
        yield stage
    finally:
        await stage.close()


async def curl(stage: Stage, endpoints: str, line: str) -> None:
    """A ``curl`` of the document, to the first node."""
    first = endpoints.partition(",")[0]
    command = line.replace("http://127.0.0.1:8001", first).replace("curl ", "curl -sSf ")
    code, said = await (await stage.run("sh", "-c", command)).ends()
    assert code == 0, said


def test_every_program_is_run_here() -> None:
    """A program or a command that is added is to be run by a test, too."""
    kinds = {part: [kind for kind, _ in found] for part, found in PARTS.items()}
    assert kinds == {
        "Settings that change while a program runs": ["python", "sh"],
        "A cron job, on one host at a time": ["python"],
        "A lock around something outside": ["python"],
        "Services that find each other": ["python", "python"],
        "A counter that counts each thing once": ["python", "sh"],
        "A queue of jobs": ["python", "python"],
    }
    for text in (text for part in PARTS for text in blocks(part, "python")):
        assert ast.get_docstring(ast.parse(text))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
async def test_settings(
    stage: Stage, raftkv_cluster: LocalCluster, raftkv_endpoints: str, raftkv_client: Client
) -> None:
    part = "Settings that change while a program runs"
    (text,), (change,) = blocks(part, "python"), blocks(part, "sh")
    program = await stage.start(text)
    await program.line(r"now Settings\(workers=4, sender='nobody@example.org'\)")
    await curl(stage, raftkv_endpoints, change)
    await program.line(r"now Settings\(workers=8, sender='mail@example.org'\)")
    raftkv_client.put("config/mailer/workers", "0")
    await program.line(r"kept Settings\(workers=8, .*: workers must be at least 1, got 0")
    leader = raftkv_cluster.leader()
    leader.kill()
    try:
        raftkv_client.put("config/mailer/workers", "16")
        await program.line(r"now Settings\(workers=16, ")
    finally:
        leader.start()
        raftkv_cluster.wait_ready()


async def test_a_cron_job(stage: Stage, raftkv_client: Client) -> None:
    (text,) = blocks("A cron job, on one host at a time", "python")
    one = await stage.start(text)
    await one.line("leads")
    other = await stage.start(text)
    first = await one.line(r"runs the job of (\d+)")
    second = await one.line(r"runs the job of (\d+)")
    assert int(second[1]) > int(first[1])  # what was run is marked, and not run again
    one.process.send_signal(signal.SIGSTOP)
    await other.line("leads")
    third = await other.line(r"runs the job of (\d+)")
    assert int(third[1]) >= int(second[1])
    one.process.send_signal(signal.SIGCONT)
    await one.line("had lost the lead|leads no more")
    other.process.kill()
    await one.line("leads")


async def test_a_lock_with_a_fence(stage: Stage, tmp_path: Path) -> None:
    (text,) = blocks("A lock around something outside", "python")
    ledger = str(tmp_path / "ledger")
    assert (await (await stage.start(text, ledger)).ends("5\n"))[0] == 0
    late = await stage.start(text, ledger)
    token = await late.line(r"token (\d+): the balance is 5")
    late.process.send_signal(signal.SIGSTOP)
    other = await stage.start(text, ledger)
    assert int((await other.line(r"token (\d+): the balance is 5"))[1]) > int(token[1])
    late.process.send_signal(signal.SIGCONT)
    code, said = await late.ends("100\n")
    assert code == 1
    assert f"Late: fencing token {token[1]} is too old" in said
    code, said = await other.ends("2\n")
    assert (code, said) == (0, "done\n")
    last = await stage.start(text, ledger)
    await last.line("the balance is 7")


async def test_services(stage: Stage) -> None:
    serve, ask = blocks("Services that find each other", "python")
    one, other = await stage.start(serve), await stage.start(serve)
    first, second = [(await each.line(r"serves at ([\d.:]+)"))[1] for each in (one, other)]
    client = await stage.start(ask)
    await client.line("2 live")
    await client.line(f"hello from {first}")
    await client.line(f"hello from {second}")
    one.process.kill()
    await client.line("1 live")
    await client.line(f"hello from {second}")
    assert "nobody answers\n" not in client.said
    other.process.terminate()
    await client.line("0 live")
    assert (await other.ends())[0] == 0
    await client.line("nobody answers")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")
async def test_a_counter(stage: Stage, raftkv_endpoints: str, raftkv_client: Client) -> None:
    part = "A counter that counts each thing once"
    (text,), (increment,) = blocks(part, "python"), blocks(part, "sh")
    one, other = await stage.start(text), await stage.start(text)
    one.tell("a\nb\n")
    await one.line("b: counted")
    one.process.kill()
    code, said = await other.ends("a\nb\nc\n")
    assert (code, said) == (0, "a: seen before\nb: seen before\nc: counted\n3 in all\n")
    for _ in range(2):
        await curl(stage, raftkv_endpoints, increment)
    visits = raftkv_client.get("visits")
    assert visits is not None
    assert visits.text == "1"


async def test_a_queue(stage: Stage, raftkv_client: Client) -> None:
    put, work = blocks("A queue of jobs", "python")
    producer, one = await stage.start(put), await stage.start(work)
    assert await producer.ends("0\nno number\n0\n") == (0, "job 1\njob 2\njob 3\n")
    await one.line("ended 0*1$")
    for number in (1, 2, 3):
        await one.line(f"does 0*2, try {number}")
        await one.line("failed at 0*2: could not convert")
    await one.line("ended 0*2$")
    assert await (await stage.start(put)).ends("1000\n") == (0, "job 4\n")
    await one.line("does 0*4, try 1")
    left = [(item.key, item.text) for item in raftkv_client.scan("queue/jobs/")]
    assert left == [("queue/jobs/000000000004", "1000")]
    dead = [(item.key, item.text) for item in raftkv_client.scan("queue/dead/")]
    assert dead == [("queue/dead/000000000002", "no number")]
    other = await stage.start(work)
    one.process.kill()
    await other.line("does 0*4, try [23]")
