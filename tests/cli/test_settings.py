"""Options from the command line, the environment and a TOML file, in this order; and bad ones refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raftkv import __version__
from raftkv.cli import main
from tests.cli.stub import Stub, dead_url, running


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=environment)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "raftkv.toml"


def test_version() -> None:
    assert run("--version").output == f"raftkv {__version__}\n"


def test_help_names_every_command_and_the_exit_codes() -> None:
    output = run("--help").output
    for word in ("serve", "local", "put", "get", "delete", "list", "status", "health", "3 outcome unknown"):
        assert word in output


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    with running(Stub(), Stub(), Stub()) as (one, two, three):
        file.write_text(f'endpoints = "{three.url}"\n')
        config = ("--config", str(file))
        assert run(*config, "health", "--endpoints", one.url, RAFTKV_ENDPOINTS=two.url).exit_code == 0
        assert run(*config, "health", RAFTKV_ENDPOINTS=two.url).exit_code == 0
        assert run(*config, "health").exit_code == 0
        assert [len(node.asked) for node in (one, two, three)] == [1, 1, 1]


@pytest.mark.parametrize("where", ["group", "command", "environment"])
def test_config_can_stand_in_three_places(file: Path, where: str) -> None:
    with running(Stub()) as (node,):
        file.write_text(f'endpoints = ["{dead_url()}", "{node.url}"]\n[put]\nif-absent = true\n')
        put, config = ("put", "k", "v"), ("--config", str(file))
        arguments = {"group": (*config, *put), "command": (*put, *config), "environment": put}[where]
        environment = {"RAFTKV_CONFIG": str(file)} if where == "environment" else {}
        assert run(*arguments, **environment).exit_code == 0
        assert run(*arguments, **environment).exit_code == 1
        assert "if_absent=true" in node.asked[0]


def test_a_command_table_wins_over_the_top_and_its_config_over_the_groups(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    with running(Stub(), Stub()) as (one, two):
        file.write_text(f'endpoints = "{dead_url()}"\n[health]\nendpoints = "{one.url}"\n')
        other.write_text(f'endpoints = "{two.url}"\n')
        assert run("--config", str(file), "health").exit_code == 0
        assert run("health", "--config", str(other), RAFTKV_CONFIG=str(file)).exit_code == 0
        assert [len(node.asked) for node in (one, two)] == [1, 1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("endpoint = 'x'", "no command has the option 'endpoint'"),
        ("[put]\nreverse = true", "[put] has no option 'reverse'"),
        ("[putt]\nlimit = 1", "there is no command for [putt]"),
        ("limit = ", "Invalid value"),
        ("[list]\nlimit = 'many'", "'many' is not a valid integer"),
        ("endpoints = 'a:b'", "'a:b' is no endpoint"),
    ],
)
def test_a_bad_file_is_a_usage_error(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    result = run("--config", str(file), "list")
    assert result.exit_code == 2
    assert complaint.lower() in result.output.lower()


def test_a_missing_file_is_a_usage_error(file: Path) -> None:
    assert run("--config", str(file), "list").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", ""),
        ("get", "k", "--consistency", "eventual"),
        ("get", "k", "--timeout", "5"),
        ("get", "k", "--timeout", "0s"),
        ("get", "k", "--timeout", "2h"),
        ("get", "k", "--endpoints", "https://h:1"),
        ("get", "k", "--endpoints", "http://h:1/path"),
        ("get", "k", "--endpoints", "http://h:99999"),
        ("get", "k", "--endpoints", ","),
        ("list", "--limit", "0"),
        ("put", "k", "v", "--if-revision", "-1"),
        ("nonsense",),
    ],
)
def test_bad_usage_is_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
