"""A node as a process of its own: what only the owner of a process may set, and its signals."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any

import structlog
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from raftkv.config import Config
from raftkv.server import joining, start
from raftkv.server.app import NodeProcess
from raftkv.storage.charter import write_charter
from raftkv.storage.datadir import DataDir
from raftkv.storage.files import OsFiles
from raftkv.storage.founding import read_token
from raftkv.tallies import Tally

logger = structlog.get_logger(__name__)

_GC_THRESHOLDS = (10_000, 20, 20)  # hardly anything here is cyclic, and there is much of it: look seldom
_SWITCH_INTERVAL_S = 0.0005  # the disk thread must not wait 5 ms for the loop to let it say that it is done


def serve(config: Config) -> None:
    """Run a node until it is told to stop. Raises ``StartError`` if it can't start, or can't go on."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    if HttpRequestParser is HttpRequestParserPy:
        logger.warning("aiohttp runs without its C parser: requests will be several times slower")
    runner = asyncio.run
    with suppress(ImportError):  # where the platform has it
        import uvloop  # noqa: PLC0415

        runner = uvloop.run
    runner(_serve(config))


async def _serve(config: Config) -> None:
    files = OsFiles()
    data_dir = DataDir.open(files, config.data_dir)
    try:
        config = dataclasses.replace(config, cluster_token=read_token(files, data_dir.path))
        gc.disable()  # what is read stays: looking for garbage in it would double the time
        beginning = await joining.begin(config, files, data_dir.path)
        charter = beginning.charter
        begin = start.read(config, files, data_dir.path, charter)
        if beginning.is_new:
            write_charter(files, data_dir.path, charter)
        process = NodeProcess(config, charter, begin)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop, number.name)
        # What was recovered lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        gc.enable()
        with _timed_collections(process.tallies.gc_pause):
            await process.run()
    finally:
        data_dir.close()


@contextmanager
def _timed_collections(pauses: Tally) -> Iterator[None]:
    """Every pass of the garbage collector is observed."""
    began_s = 0.0

    def look(phase: str, _: dict[str, Any]) -> None:
        nonlocal began_s
        if phase == "start":
            began_s = perf_counter()
        else:
            pauses.observe(perf_counter() - began_s)

    gc.callbacks.append(look)
    try:
        yield
    finally:
        gc.callbacks.remove(look)
