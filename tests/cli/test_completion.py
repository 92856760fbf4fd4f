"""``raftkv completion``: the scripts, and what they are answered when a word is to be completed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftkv.cli import COMMANDS, main
from raftkv.cli.completion import SHELLS


def completed(shell: str, words: str, at: int) -> list[str]:
    """What the ``at``-th of ``words``, the command being the 0th, may become, as a script asks for it."""
    asked = {"_RAFTKV_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    result = CliRunner().invoke(main, [], prog_name="raftkv", env=asked)
    assert result.exit_code == 0
    return result.output.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_that_asks_raftkv(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"_RAFTKV_COMPLETE={shell}_complete" in result.stdout
    assert f"completion {shell}" in CliRunner().invoke(main, ["completion", "--help"]).stdout


def test_another_shell_is_refused() -> None:
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def test_all_commands_their_subcommands_options_and_choices_are_completed() -> None:
    assert completed("bash", "raftkv ", 1) == [f"plain,{name}" for name in COMMANDS]
    assert completed("bash", "raftkv election re", 2) == ["plain,resign"]
    assert "plain,--lease" in completed("bash", "raftkv put --", 2)
    assert completed("bash", "raftkv get k --output ", 4) == ["plain,table", "plain,json"]
    assert completed("bash", "raftkv txn ", 2) == ["file,"]
    assert completed("zsh", "raftkv healt", 1)[:2] == ["plain", "health"]


def test_bash_completes_by_the_script(tmp_path: Path) -> None:
    command = tmp_path / "raftkv"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m raftkv "$@"\n')
    command.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    asks = f"COMP_WORDS=(raftkv elec); COMP_CWORD=1; _raftkv_completion {command}; echo ${{COMPREPLY[@]}}"
    bash = ["bash", "--norc", "-c", f"{script}\n{asks}"]
    assert subprocess.run(bash, capture_output=True, text=True, check=True).stdout == "election\n"
