"""The command line, and the composition root: it may import everything.

Every family of commands is a module of its own, imported only when one of its commands runs: a listing has to answer
within 200 ms, of which Python and click take half. Listings read ledger and indexes themselves; what changes something
goes through the sidecar.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from tapefs.cli.exits import FAILED, report
from tapefs.cli.place import Place
from tapefs.home import URL, VARIABLE, default_home, usual_home
from tapefs.starting import imports

#: Section of the help -> its commands -> the module that has each. Sections and commands stand there in this order.
SECTIONS = {
    "Begin": {
        "init": "tapefs.cli.setting_up",
        "doctor": "tapefs.cli.doctor",
        "serve": "tapefs.cli.service",
        "version": "tapefs.cli.setting_up",
        "completion": "tapefs.cli.completion",
    },
    "Back up": {
        "backup": "tapefs.cli.backup",
        "job": "tapefs.cli.job",
        "jobs": "tapefs.cli.jobs",
        "schedule": "tapefs.cli.schedule",
        "report": "tapefs.cli.reports",
        "verify": "tapefs.cli.verify",
    },
    "Look and get back": {
        "mount": "tapefs.cli.service",
        "sets": "tapefs.cli.sets",
        "show": "tapefs.cli.sets",
        "ls": "tapefs.cli.listing",
        "find": "tapefs.cli.find",
        "versions": "tapefs.cli.versions",
        "restore": "tapefs.cli.restore",
    },
    "What is fetched to the disk": {
        "stage": "tapefs.cli.staging",
        "evict": "tapefs.cli.staging",
        "pins": "tapefs.cli.staging",
        "unpin": "tapefs.cli.staging",
        "staging": "tapefs.cli.staged",
        "recall": "tapefs.cli.recalls",
        "recalls": "tapefs.cli.recalls",
    },
    "Tapes and drives": {
        "tapes": "tapefs.cli.library",
        "drives": "tapefs.cli.library",
        "inventory": "tapefs.cli.inventory",
        "prompts": "tapefs.cli.prompts",
        "tape": "tapefs.cli.tape",
        "library": "tapefs.cli.virtual",
        "vtl": "tapefs.cli.vtl",
    },
    "Policies": {
        "pool": "tapefs.cli.pools",
        "vault": "tapefs.cli.vault",
        "expire": "tapefs.cli.expire",
        "explain": "tapefs.cli.explain",
        "reclaim": "tapefs.cli.reclaim",
        "key": "tapefs.cli.key",
    },
    "Who may call over HTTP": {
        "token": "tapefs.cli.tokens",
        "user": "tapefs.cli.users",
    },
    "Trouble, and tapes of others": {
        "check": "tapefs.cli.check",
        "events": "tapefs.cli.events",
        "notify": "tapefs.cli.notify",
        "audit": "tapefs.cli.audit",
        "catalog": "tapefs.cli.catalog",
        "rebuild": "tapefs.cli.rebuild",
        "import": "tapefs.cli.rebuild",
        "taf": "tapefs.cli.taf",
        "plan": "tapefs.cli.plan",
    },
}
#: Command -> the module that has it.
COMMANDS = {command: module for section in SECTIONS.values() for command, module in section.items()}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        with imports():
            module = import_module(COMMANDS[cmd_name])
        command = getattr(module, f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise AssertionError(f"{COMMANDS[cmd_name]} has no command {cmd_name}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section; all first columns are of one width."""
        widest = max(map(len, COMMANDS))
        for section, names in SECTIONS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            with formatter.section(section):
                formatter.write_dl(
                    [
                        (name.ljust(widest), command.get_short_help_str(limit=66))
                        for name, command in commands
                        if command
                    ]
                )


@click.command(cls=LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"State folder; else {VARIABLE}, else {usual_home()}.",
)
@click.option("--url", metavar="URL", help="Ask a sidecar elsewhere: https://HOST:PORT; else TAPEFS_URL.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With the token for --url; else TAPEFS_TOKEN_FILE.",
)
@click.pass_context
def group(ctx: click.Context, home: Path | None, url: str | None, token_file: Path | None) -> None:
    """Back up to tape, and mount what lies there."""
    ctx.obj = _place(home, url, token_file)


def _place(home: Path | None, url: str | None, token_file: Path | None) -> Place:
    """Return what was named: a state folder, or a sidecar elsewhere; what is said on the command line goes first."""
    if home is not None and url is not None:
        raise click.UsageError("--home and --url contradict each other")
    if url is None and (home is not None or not os.environ.get(URL)):
        if token_file is not None:
            raise click.UsageError("--token-file belongs to --url")
        return Place(home or default_home())
    # Imported here: TLS takes longer to load than a listing may.
    from tapefs.client.address import environment_address

    return Place(default_home(), environment_address(url, token_file=token_file))


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
