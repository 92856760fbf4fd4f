"""Options from a TOML file (``--config``), as defaults for click.

A key at the top of the file is for every command that has this option; a table ``[local]`` or ``[wal.dump]``
is for that command alone, and wins. A key that no command has is refused: a typo must not become a default.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

CONFIG_META = "raftkv.config"
"""Where ``ctx.meta`` has the file's path, for a command that starts others."""


def option_word(option: click.Option) -> str:
    """An option's name as files and the environment spell it: ``data_dir`` for ``--data-dir``."""
    long_names = [name for name in option.opts if name.startswith("--")]
    return (long_names[0] if long_names else option.opts[0]).lstrip("-").replace("-", "_")


def config_option(*, from_environment: bool) -> click.Option:
    """``--config FILE``. Only the group's own reads RAFTKV_CONFIG: a command's --config wins over it."""
    return click.Option(
        ["--config"],
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        envvar="RAFTKV_CONFIG" if from_environment else None,
        help="Take options from this TOML file.",
        expose_value=False,
        is_eager=True,
        callback=_take_defaults,
    )


def _take_defaults(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    ctx.meta[CONFIG_META] = path
    root = ctx.find_root()
    defaults = _Reader(path, root).defaults()
    # The file speaks to the whole command tree: walk down to the command whose --config this was.
    names: list[str] = []
    at: click.Context | None = ctx
    while at is not None and at is not root:
        names.append(at.info_name or "")
        at = at.parent
    for name in reversed(names):
        defaults = defaults.get(name, {})
    ctx.default_map = defaults


class _Reader:
    def __init__(self, path: Path, root: click.Context) -> None:
        self._path = path
        self._root = root

    def defaults(self) -> dict[str, Any]:
        """Click's ``default_map`` for the whole tree. Raises ``click.UsageError``."""
        try:
            document = tomllib.loads(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise click.UsageError(f"{self._path}: {error}", self._root) from error
        if not isinstance(self._root.command, click.Group):
            return self._own(self._root.command, "", document, {}, set())
        used: set[str] = set()
        shared = {_word(key): value for key, value in document.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in document.items() if isinstance(value, dict)}
        result = self._group(self._root.command, "", tables, shared, used)
        for key in sorted(shared.keys() - used):
            raise click.UsageError(f"{self._path}: no command has the option {key!r}", self._root)
        return result

    def _group(
        self, group: click.Group, where: str, tables: dict[str, Any], shared: dict[str, Any], used: set[str]
    ) -> dict[str, Any]:
        names = group.list_commands(self._root)
        for key in tables:
            if key not in names:
                raise click.UsageError(f"{self._path}: there is no command for [{where}{key}]", self._root)
        result: dict[str, Any] = {}
        for name in names:
            command = group.get_command(self._root, name)
            table = tables.get(name, {})
            if not isinstance(table, dict):
                raise click.UsageError(f"{self._path}: {where}{name} must be a table", self._root)
            if isinstance(command, click.Group):
                result[name] = self._group(command, f"{where}{name}.", table, shared, used)
            elif command is not None:
                result[name] = self._own(command, f"{where}{name}", table, shared, used)
        return result

    def _own(
        self,
        command: click.Command,
        where: str,
        table: dict[str, Any],
        shared: dict[str, Any],
        used: set[str],
    ) -> dict[str, Any]:
        options = {
            option_word(option): option.name
            for option in command.params
            if isinstance(option, click.Option) and option.name not in (None, "config", "help", "version")
        }
        result: dict[str, Any] = {}
        for word, name in options.items():
            if word in shared:
                used.add(word)
                result[str(name)] = shared[word]
        for key, value in table.items():
            if _word(key) not in options:
                raise click.UsageError(f"{self._path}: [{where}] has no option {key!r}", self._root)
            result[str(options[_word(key)])] = value
        return result


def _word(key: str) -> str:
    return key.replace("-", "_")
