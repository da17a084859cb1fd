"""`tapefs pool`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import msgspec
from msgspec import UNSET

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.pools import PoolClient, PoolFields, PoolView
from tapefs.sizes import counted

Function = Callable[..., None]

_OPTIONS = (
    click.option(
        "--retention",
        metavar="RULE",
        help="For how long its sets stay at least: `30 days`, `6 months`, `6 tape-months` (to the end of the month in "
        "which the tape was begun, and six more), `for ever`, or `job`: as the job says.  [default: job]",
    ),
    click.option(
        "--allocation",
        metavar="RULE",
        help="Which begun tapes are gone on with: `continue`: any; `per EVENT`, as `per weekly` or `per Mon..Fri`: "
        "those begun since; `job`: those with sets of the same job; `run`: none.  [default: continue]",
    ),
    click.option(
        "--copy-pool",
        "copy_pools",
        metavar="POOL",
        multiple=True,
        help="Copy every set to tapes of this pool, too; repeatable; '' for none.",
    ),
    click.option("--use-scratch/--no-scratch", default=None, help="May it take blank tapes of pool scratch?  [yes]"),
    click.option(
        "--reuse/--no-reuse",
        default=None,
        help="May a tape be overwritten by itself when all of its sets have expired?  [no]",
    ),
    click.option("--reuse-grace-days", type=click.IntRange(0), help="… so many days ago.  [default: 7]"),
    click.option("--vault", metavar="PLACE", help="Where its tapes belong once they are full; '' for nowhere."),
    click.option("--vault-after-days", type=click.IntRange(0), help="… or so long after they were begun; 0: no."),
    click.option("--description", metavar="TEXT", help="For people."),
)
_NAMES = tuple(PoolFields.__struct_fields__)


@click.group("pool", no_args_is_help=False, short_help="Rules for tapes: how long, how many, where, and when anew.")
def pool_command() -> None:
    """Pools of tapes, with rules for how long sets stay, when a new tape is begun, and what becomes of full ones."""


def _options(function: Function) -> Function:
    command = function
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@pool_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the pools with their rules."""
    with _calls(place) as calls:
        pools = calls.list()
    if as_json:
        print_json([msgspec.to_builtins(pool) for pool in pools])
        return
    print_table(
        ("POOL", "TAPES", "BLANK", "RETENTION", "ALLOCATION", "REUSE", "COPIES", "VAULT"),
        [
            (
                pool.name + (" (settings)" if pool.is_default else ""),
                sum(pool.tapes.values()),
                pool.tapes.get("blank", 0),
                pool.retention,
                pool.allocation,
                f"{pool.reuse_grace_days} d" if pool.reuse else "no",
                " ".join(pool.copy_pools) or "-",
                _vault(pool),
            )
            for pool in pools
        ],
    )


def _vault(pool: PoolView) -> str:
    if not pool.vault:
        return "-"
    return f"{pool.vault}, {f'after {pool.vault_after_days} d or ' if pool.vault_after_days else ''}when full"


@pool_command.command("show")
@click.argument("name", metavar="POOL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, name: str, as_json: bool) -> None:
    """Show a pool, and which tape is written next.

    Of every other tape it says why not.
    """
    with _calls(place) as calls:
        pool = calls.show(name)
    if as_json:
        print_json(msgspec.to_builtins(pool))
        return
    for key, value in _facts(pool):
        click.echo(f"{key:<12}{value}")
    if pool.answers:
        click.echo()
        print_table(
            ("TAPE", "STATE", "NEXT", "REASON"),
            [(each.tape, each.state, "next" if each.tape == pool.next else "", each.reason) for each in pool.answers],
        )


def _facts(pool: PoolView) -> list[tuple[str, str]]:
    tapes = ", ".join(f"{count} {state}" for state, count in pool.tapes.items() if count) or "none"
    facts = [
        ("pool", pool.name + (" (the one of the settings)" if pool.is_default else "")),
        ("tapes", tapes),
        ("retention", pool.retention),
        ("allocation", pool.allocation),
        ("scratch", "yes" if pool.use_scratch else "no"),
        ("reuse", f"{pool.reuse_grace_days} days after the last set has expired" if pool.reuse else "no"),
        ("copies", " ".join(pool.copy_pools) or "none"),
        ("vault", _vault(pool)),
    ]
    if pool.description:
        facts.insert(1, ("description", pool.description))
    return facts


@pool_command.command("create")
@click.argument("name", metavar="POOL")
@_options
@click.pass_obj
def create_command(place: Place, /, name: str, **options: object) -> None:
    """Make a pool. The pool `scratch` has no rules: its blank tapes serve the other pools, and new tapes join it."""
    with _calls(place) as calls:
        calls.create(name, _fields(options))


@pool_command.command("edit")
@click.argument("name", metavar="POOL")
@_options
@click.pass_obj
def edit_command(place: Place, /, name: str, **options: object) -> None:
    """Change the rules of a pool.

    They count for the sets that it has, too.
    """
    with _calls(place) as calls:
        calls.edit(name, _fields(options))


@pool_command.command("delete")
@click.argument("name", metavar="POOL")
@click.pass_obj
def delete_command(place: Place, name: str) -> None:
    """Forget a pool that no tape, job or other pool uses."""
    with _calls(place) as calls:
        calls.delete(name)


@pool_command.command("assign")
@click.argument("name", metavar="POOL")
@click.argument("tapes", metavar="TAPE...", nargs=-1, required=True)
@click.pass_obj
def assign_command(place: Place, name: str, tapes: tuple[str, ...]) -> None:
    """Put blank tapes into a pool. A tape with a label stays in its pool until it is relabelled."""
    with _calls(place) as calls:
        found = calls.assign(name, tapes)
    click.echo(f"{counted(len(found), 'tape')} {'is' if len(found) == 1 else 'are'} in pool {name} now", err=True)


def _fields(options: dict[str, object]) -> PoolFields:
    copy_pools = options.pop("copy_pools")
    names = [name for name in copy_pools if name] if isinstance(copy_pools, tuple) and copy_pools else UNSET
    chosen = {name: UNSET if options[name] is None else options[name] for name in _NAMES if name != "copy_pools"}
    return PoolFields(copy_pools=names, **chosen)  # type: ignore[arg-type]


@contextmanager
def _calls(place: Place) -> Iterator[PoolClient]:
    with sidecar_of(place) as client:
        yield PoolClient(client)
