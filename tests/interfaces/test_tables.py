"""Every row works as it is written: from curl, from the client, and from the command line, on real nodes."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner

import raftkv
from raftkv import Client, RaftkvError
from raftkv.cli import main
from raftkv.testing import LocalCluster, LocalNode
from tests.interfaces.grants import CLUSTER, LEASES
from tests.interfaces.rows import KEYS, Row
from tests.interfaces.rules import COMMANDS, READS, RULES, WITHOUT_A_MAJORITY

pytestmark = pytest.mark.cluster

ROWS = (*KEYS, *LEASES, *CLUSTER, *READS, *RULES, *COMMANDS)
WAYS = ("curl", "client", "cli")
DEADLINE_S = 30.0


def cases(rows: tuple[Row, ...]) -> list[Any]:
    """One for each way that a row has."""
    return [
        pytest.param(row, way, id=f"{row.call} - {way}")
        for row in rows
        for way in WAYS
        if getattr(row, way) is not None
    ]


class Bench:
    """The cluster, and what rows may use. ``names`` are what their expressions see."""

    def __init__(self, cluster: LocalCluster, client: Client, directory: Path, number: int) -> None:
        self.cluster = cluster
        self.client = client
        self._directory = directory
        self._files = itertools.count(1)
        self.names: dict[str, Any] = {
            **{name: getattr(raftkv, name) for name in ("Delete", "Get", "Increment", "Put", "Txn", "Value")},
            **{"client": client, "msgpack": msgpack, "raised": raised, "first": first},
            **{"saved": self.saved, "fresh": self.fresh, "everywhere": self.everywhere},
            **{"other_than": self.other_than, "other_url": self.other_url, "at": self.at},
            "url_of": lambda name: cluster.node(name).url,
            "key": f"row{number}",
            "url": cluster.nodes[number % len(cluster.nodes)].url,
        }

    def holds(self, expression: str, **more: Any) -> bool:
        self.names.update(more)
        return bool(eval(f"({expression})", self.names))

    def filled(self, text: str) -> list[str]:
        """The words of a command."""
        return shlex.split(Template(text).substitute(self.names))

    def fresh(self, content: bytes | None = None) -> str:
        """A path; with ``content`` a file is there."""
        path = self._directory / f"file{next(self._files)}"
        if content is not None:
            path.write_bytes(content)
        return str(path)

    def saved(self, document: Any) -> str:
        return self.fresh(json.dumps(document).encode())

    def everywhere(self, revision: int) -> bool:
        """Every node has applied it."""
        for node in self.cluster.nodes:
            self.at(node.url).get("any", min_revision=revision, consistency="stale", timeout=DEADLINE_S)
        return True

    def at(self, url: str) -> Client:
        """A client of one node alone."""
        client = self.names[f"client of {url}"] = Client(url, learn=False)
        return client

    def other_than(self, name: str) -> str:
        return next(node.name for node in self.cluster.nodes if node.name != name)

    def other_url(self, url: str) -> str:
        return next(node.url for node in self.cluster.nodes if node.url not in (url, self.names["url"]))

    def close(self) -> None:
        for name, value in self.names.items():
            if name.startswith("client of "):
                value.close()


def raised(call: Callable[..., Any], *arguments: Any, **named: Any) -> RaftkvError:
    with pytest.raises(RaftkvError) as caught:
        call(*arguments, **named)
    return caught.value


def first(steps: Any) -> Any:
    with steps:
        return next(steps)


# -- the ways ----------------------------------------------------------------------------------------------


def by_curl(bench: Bench, row: Row) -> None:
    for asked, expected in row.curl or ():
        words = bench.filled(asked)
        if "-N" in words:
            followed(bench, words, expected)
            continue
        curl = ["curl", "-sS", "-i", "-g", "--max-time", str(DEADLINE_S), *words]
        raw = subprocess.run(curl, capture_output=True, check=True).stdout
        status, headers, body = 100, dict[str, str](), raw
        while status < 200 or (status == 307 and "-L" in words):
            head, _, body = body.partition(b"\r\n\r\n")
            status, headers = read_head(head)
        assert bench.holds(expected, status=status, headers=headers, **read_body(body)), (asked, raw)


def followed(bench: Bench, words: list[str], expected: str) -> None:
    """What curl has got so far of an answer without an end, line by line, until it is as expected."""
    curl = ["curl", "-sS", "--max-time", str(DEADLINE_S), *words]
    with subprocess.Popen(curl, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        body = ""
        for line in process.stdout:
            body += line
            if bench.holds(expected, body=body):
                process.kill()
                return
    raise AssertionError(f"curl {words} got only {body!r}")


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    first_line, *lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


def read_body(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return {"body": body.decode("utf-8", "replace"), "json": document}


def by_client(bench: Bench, row: Row) -> None:
    for step in row.client or ():
        assert bench.holds(step), step


def by_cli(bench: Bench, row: Row) -> None:
    # The first endpoint is another one each time, as curl's is.
    urls = sorted(bench.cluster.endpoints.split(","), key=lambda url: url != bench.names["url"])
    for command, expected in row.cli or ():
        result = CliRunner().invoke(main, bench.filled(command), env={"RAFTKV_ENDPOINTS": ",".join(urls)})
        told = {"code": result.exit_code, "out": result.stdout, "err": result.stderr}
        lines = read_body(result.stdout_bytes)["json"]
        assert bench.holds(expected, **told, json=lines), (command, told, result.exception)


DO = {"curl": by_curl, "client": by_client, "cli": by_cli}


# -- the rows ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(raftkv_cluster: LocalCluster) -> Iterator[Client]:
    raftkv_cluster.clear()
    with Client(raftkv_cluster.endpoints, timeout=DEADLINE_S) as client:
        yield client


NUMBERS = itertools.count(1)


@pytest.fixture
def bench(raftkv_cluster: LocalCluster, client: Client, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(raftkv_cluster, client, tmp_path, next(NUMBERS))
    yield bench
    bench.close()


@pytest.mark.parametrize(("row", "way"), cases(ROWS))
def test_a_row(bench: Bench, row: Row, way: str) -> None:
    for step in row.before:
        bench.holds(step)
    DO[way](bench, row)


@pytest.fixture(scope="module")
def survivor(raftkv_cluster: LocalCluster, client: Client) -> Iterator[LocalNode]:
    """The one node that lives; the others are killed, and in the end started again."""
    alive, *dead = raftkv_cluster.nodes
    for node in dead:
        node.kill()
    deadline = time.monotonic() + DEADLINE_S
    while alive.ready():
        assert time.monotonic() < deadline
    yield alive
    for node in dead:
        node.start()
    raftkv_cluster.wait_ready()


@pytest.mark.parametrize(("row", "way"), cases(WITHOUT_A_MAJORITY))
def test_a_row_without_a_majority(bench: Bench, survivor: LocalNode, row: Row, way: str) -> None:
    bench.names |= {"alive": survivor.url, "survivor": survivor.name}
    DO[way](bench, row)
