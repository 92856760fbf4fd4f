"""The progress bar: seen by people at a terminal, and by nobody else."""

from __future__ import annotations

import io
import sys

import pytest

from raftkv.cli.progress import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "shown"), [(3_000, "3,000 of 3,000 keys"), (None, "3,000 keys")])
def test_people_see_how_far_it_is(total: int | None, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with bar("keys", total, "table") as advance:
        advance(1_000)
        advance(2_000)
    assert shown in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_pipe_and_a_machine_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for stderr, output in ((io.StringIO(), "table"), (Terminal(), "json")):
        monkeypatch.setattr(sys, "stderr", stderr)
        with bar("keys", 10, output) as advance:
            advance(10)
        assert stderr.getvalue() == ""
