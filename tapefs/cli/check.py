"""`tapefs check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, printable
from tapefs.cli.place import Place, ledger_of, sidecar_of
from tapefs.cli.progress import reporting
from tapefs.errors import CatalogInDoubt, TapefsError
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.check.process import Found

#: Named here, because a command line that only prints its help imports no check.
NAMES = ("ledger", "sets", "tapes", "trailers", "indexes", "names", "staging", "leftovers")


@click.command("check", short_help="Compare ledger, indexes, trailers and staging with each other.")
@click.argument("checks", metavar="[CHECK]...", nargs=-1, type=click.Choice(NAMES))
@click.option("--repair", is_flag=True, help="Put right what can be made again from what is there; nothing else.")
@click.option(
    "--tapes",
    "tapes",
    type=click.Choice(["sample", "all"]),
    help="Then read the tapes back as well: of each the segment that was read back the longest ago, or all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check_command(place: Place, checks: tuple[str, ...], repair: bool, tapes: str | None, as_json: bool) -> None:
    """Compare ledger, indexes, trailers and staging with each other; without a CHECK all of them, in this order:

    \b
    ledger     its records are readable, and none contradicts another
    sets       everything that is shown is on a tape, and so is what it builds on
    tapes      nothing overlaps, and no tape is set aside
    trailers   the local copies are there and say what the ledger does
    indexes    every set has one, sound to the last record
    names      every set has its names file for searches
    staging    what is staged is what came from tape
    leftovers  nothing takes room that belongs to no set

    A sidecar and mounts may be at work meanwhile. No tape moves without --tapes; `tapefs verify` reads back certain
    sets and tapes. The exit code is 1 when anything is wrong that --repair has not put right.
    """
    if tapes and as_json:
        raise click.UsageError("--tapes tells in plain text: `tapefs verify --json` has the tapes' findings")
    look = _checked_here if place.is_here else _checked_there
    found = look(place, checks, repair, as_json)
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
    else:
        left = sum(not each.repaired for each in found)
        told = f"{counted(left, 'finding')}" if left else f"all right{_repairs(len(found))}"
        click.echo(f"check: {counted(len(checks or NAMES), 'check')}, {told}", err=True)
    if tapes:
        from tapefs.cli.verify import read_back_all

        read_back_all(place, sample=1 if tapes == "sample" else 0)
    _judge(found)


def _checked_here(place: Place, checks: Sequence[str], repair: bool, as_json: bool) -> list[Found]:
    """Check, and print what is found at once unless it is wanted as JSON; return it."""
    from tapefs.check.finding import Scene
    from tapefs.check.process import found_of
    from tapefs.check.run import run_checks

    found: list[Found] = []
    home = place.home()
    with ledger_of(place) as ledger, reporting("check") as reporter:
        scene = Scene(home, ledger, lambda what: reporter.update(0, 0, what))
        for outcome in run_checks(scene, checks or NAMES, repair=repair):
            found.append(found_of(outcome))
            if not as_json:
                _tell(found[-1])
    return found


def _checked_there(place: Place, checks: Sequence[str], repair: bool, as_json: bool) -> list[Found]:
    """Have a sidecar elsewhere check; it tells at the end."""
    from tapefs.check.process import Found
    from tapefs.cli.upkeeping import waited

    with sidecar_of(place) as client:
        check = waited(client, client.upkeep.check(checks, repair=repair), "check").check
    if check is None:
        raise TapefsError("the sidecar's answer has no findings: is it of another version?")
    found = [Found(**msgspec.structs.asdict(each)) for each in check.findings]
    if not as_json:
        for each in found:
            _tell(each)
    if len(found) < check.findings_total:
        more = f"{check.findings_total - len(found):,} more findings are not told elsewhere"
        click.echo(f"check: {more}: put these right, or run it beside the state folder", err=True)
    return found


def _tell(found: Found) -> None:
    click.echo(f"{found.check}: {printable(found.subject)}: {printable(found.problem)}{_ending(found)}")


def _judge(found: list[Found]) -> None:
    """Raise CatalogInDoubt unless everything was put right."""
    left = [each for each in found if not each.repaired]
    if left:
        mendable = sum(each.repairable and not each.error for each in left)
        hint = f"; --repair puts {mendable} of them right" if mendable else ""
        raise CatalogInDoubt(f"{counted(len(left), 'thing')} not as it should be{hint}")


def _repairs(count: int) -> str:
    return f" after {counted(count, 'repair')}" if count else ""


def _ending(found: Found) -> str:
    if found.repaired:
        return " [repaired]"
    if found.error:
        return f" [the repair failed: {found.error}]"
    return f" [{found.advice}]" if found.advice else ""
