"""``raftkv serve`` told to stop before the server has handlers of its own: it imports, or reads its log."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from click.testing import CliRunner

from raftkv.cli import main

ARGUMENTS = ["serve", "--id", "n1", "--data-dir", "nowhere", "--cluster", "n1=127.0.0.1:9001"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    def read_its_log(config: Any) -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("it goes on")

    reached: list[int] = []

    def not_reached(number: int, frame: Any) -> None:
        reached.append(number)

    kept = signal.signal(number, not_reached)
    try:
        monkeypatch.setattr("raftkv.server.process.serve", read_its_log)
        assert CliRunner().invoke(main, ARGUMENTS).exit_code == 0
        assert signal.getsignal(number) is not_reached, "what was there before is back"
    finally:
        signal.signal(number, kept)
    assert reached == []
