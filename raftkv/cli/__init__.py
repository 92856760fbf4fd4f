"""The ``raftkv`` command.

Rules: a command's module is imported when it is run (a health check must not pay for a server). People get
tables and colour on a terminal, plain lines in a pipe, JSON on request. Errors are one clear line on stderr.
Exit codes: 0 done, 1 refused or failed, 2 usage, 3 outcome unknown, 4 no quorum.
"""

from __future__ import annotations

import click

from raftkv import __version__
from raftkv.cli.group import CommandGroup
from raftkv.cli.settings import config_option

COMMANDS = {
    "serve": "raftkv.cli.serve:serve",
    "local": "raftkv.cli.local:local",
    "put": "raftkv.cli.kv:put",
    "get": "raftkv.cli.kv:get",
    "delete": "raftkv.cli.kv:delete",
    "list": "raftkv.cli.kv:list_keys",
    "watch": "raftkv.cli.watch:watch",
    "lease": "raftkv.cli.lease:lease",
    "lock": "raftkv.cli.lock:lock",
    "election": "raftkv.cli.election:election",
    "service": "raftkv.cli.service:service",
    "txn": "raftkv.cli.txn:txn",
    "batch": "raftkv.cli.txn:batch",
    "status": "raftkv.cli.status:status",
    "health": "raftkv.cli.health:health",
    "backup": "raftkv.cli.backup:backup",
    "restore": "raftkv.cli.restore:restore",
    "snapshot": "raftkv.cli.restore:snapshot",
    "recover": "raftkv.cli.recover:recover",
    "transfer": "raftkv.cli.transfer:transfer",
    "members": "raftkv.cli.members:members",
    "member": "raftkv.cli.members:member",
    "wal": "raftkv.cli.wal:wal",
    "verify": "raftkv.cli.verify:verify",
    "simulate": "raftkv.cli.simulate:simulate",
    "bench": "raftkv.cli.bench:bench",
    "completion": "raftkv.cli.completion:completion",
}


@click.group(
    cls=CommandGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[config_option(from_environment=True)],
)
@click.version_option(__version__, prog_name="raftkv", message="%(prog)s %(version)s")
def main() -> None:
    """A replicated, durable, linearizable key-value store.

    Every option can also be given as RAFTKV_<OPTION> in the environment (--data-dir is RAFTKV_DATA_DIR), or
    in a TOML file named by --config: at its top for every command that has the option, or in a table named
    after one command, which wins. The command line wins over the environment, that over the file.

    Exit codes: 0 done, 1 refused or failed, 2 usage, 3 outcome unknown (a write may have happened),
    4 no quorum.
    """
