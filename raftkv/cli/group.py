"""The command group: finds commands when they are needed, and gives all their options the same two doors.

Every option of every command, whoever wrote it, gets an environment variable ``RAFTKV_<OPTION>`` and
``--config FILE``. Must not know any single command.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from raftkv.cli.settings import config_option, option_word


class CommandGroup(click.Group):
    """``commands_at`` maps a command's name to ``module:attribute``, in the order help shows them."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = dict(commands_at)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in self._commands_at:
            module, attribute = self._commands_at[cmd_name].split(":")
            command = getattr(import_module(module), attribute)
            _adopt(command)
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)


def _adopt(command: click.Command) -> None:
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _adopt(child)
        return
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.envvar is None:
            parameter.envvar = f"RAFTKV_{option_word(parameter).upper()}"
    if not any(parameter.name == "config" for parameter in command.params):
        command.params.append(config_option(from_environment=False))
