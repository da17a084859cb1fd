"""The command line, and the composition root: it may import everything.

Every family of commands is a module of its own, imported only when one of its commands runs: a listing has to answer
within 200 ms, of which Python and click take half. Listings read ledger and indexes themselves; what changes something
goes through the sidecar.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from tapefs.cli.exits import FAILED, report
from tapefs.cli.place import Place
from tapefs.home import VARIABLE, default_home, usual_home

#: Command -> the module that has it.
COMMANDS = {
    "init": "tapefs.cli.setting_up",
    "serve": "tapefs.cli.service",
    "mount": "tapefs.cli.service",
    "backup": "tapefs.cli.backup",
    "sets": "tapefs.cli.sets",
    "show": "tapefs.cli.sets",
    "ls": "tapefs.cli.listing",
    "find": "tapefs.cli.find",
    "versions": "tapefs.cli.versions",
    "restore": "tapefs.cli.restore",
    "verify": "tapefs.cli.verify",
    "check": "tapefs.cli.check",
    "catalog": "tapefs.cli.catalog",
    "report": "tapefs.cli.reports",
    "tapes": "tapefs.cli.library",
    "drives": "tapefs.cli.library",
    "prompts": "tapefs.cli.prompts",
    "tape": "tapefs.cli.tape",
    "inventory": "tapefs.cli.inventory",
    "stage": "tapefs.cli.staging",
    "pins": "tapefs.cli.staging",
    "unpin": "tapefs.cli.staging",
    "evict": "tapefs.cli.staging",
    "staging": "tapefs.cli.staged",
    "recall": "tapefs.cli.recalls",
    "recalls": "tapefs.cli.recalls",
    "expire": "tapefs.cli.expire",
    "pool": "tapefs.cli.pools",
    "vault": "tapefs.cli.vault",
    "explain": "tapefs.cli.explain",
    "jobs": "tapefs.cli.jobs",
    "job": "tapefs.cli.job",
    "plan": "tapefs.cli.plan",
    "rebuild": "tapefs.cli.rebuild",
    "import": "tapefs.cli.rebuild",
    "taf": "tapefs.cli.taf",
    "library": "tapefs.cli.virtual",
    "vtl": "tapefs.cli.vtl",
    "key": "tapefs.cli.key",
    "doctor": "tapefs.cli.doctor",
    "version": "tapefs.cli.setting_up",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise AssertionError(f"{COMMANDS[cmd_name]} has no command {cmd_name}")
        return command


@click.command(cls=LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"State folder; else {VARIABLE}, else {usual_home()}.",
)
@click.pass_context
def group(ctx: click.Context, home: Path | None) -> None:
    """Back up to tape, and mount what lies there."""
    ctx.obj = Place(home or default_home())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command (the process's own when `arguments` is None); return its exit code."""
    try:
        group.main(args=arguments, prog_name="tapefs", standalone_mode=False)
    except BrokenPipeError:
        # Our reader has seen enough (`tapefs ls … | head`). Nothing more can be said on stdout, not even at exit.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return FAILED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 -- the process boundary; `report` raises bugs again
        return report(error)
    return 0
