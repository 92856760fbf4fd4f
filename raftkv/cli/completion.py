"""``raftkv completion``: what a shell needs to complete commands and options, as click makes it."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_RAFTKV_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete raftkv's commands and options.

    \b
    bash:  raftkv completion bash > ~/.local/share/bash-completion/completions/raftkv
    zsh:   raftkv completion zsh > "${fpath[1]}/_raftkv"
    fish:  raftkv completion fish > ~/.config/fish/completions/raftkv.fish

    It counts from the next shell on; in this one: eval "$(raftkv completion bash)", or zsh; in fish: raftkv
    completion fish | source. bash must be 4.4 or newer.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "raftkv", VARIABLE).source())
