"""`tapefs check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import Json, print_json
from tapefs.cli.place import Place, ledger_of
from tapefs.cli.progress import reporting
from tapefs.errors import CatalogInDoubt
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.check.run import Outcome

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
    from tapefs.check.finding import Scene
    from tapefs.check.run import run_checks

    if tapes and as_json:
        raise click.UsageError("--tapes tells in plain text: `tapefs verify --json` has the tapes' findings")
    home = place.home()
    outcomes: list[Outcome] = []
    with ledger_of(place) as ledger, reporting("check") as reporter:
        scene = Scene(home, ledger, lambda what: reporter.update(0, 0, what))
        for outcome in run_checks(scene, checks or NAMES, repair=repair):
            outcomes.append(outcome)
            if not as_json:
                finding = outcome.finding
                click.echo(f"{finding.check}: {finding.subject}: {finding.problem}{_ending(outcome)}")
    if as_json:
        print_json([_shown(outcome) for outcome in outcomes])
    else:
        left = sum(not outcome.repaired for outcome in outcomes)
        told = f"{counted(left, 'finding')}" if left else f"all right{_repairs(len(outcomes))}"
        click.echo(f"check: {counted(len(checks or NAMES), 'check')}, {told}", err=True)
    if tapes:
        from tapefs.cli.verify import read_back_all

        read_back_all(home, sample=1 if tapes == "sample" else 0)
    _judge(outcomes)


def _judge(outcomes: list[Outcome]) -> None:
    """Raise CatalogInDoubt unless everything was put right."""
    left = [outcome for outcome in outcomes if not outcome.repaired]
    if left:
        mendable = sum(outcome.finding.repair is not None and not outcome.error for outcome in left)
        hint = f"; --repair puts {mendable} of them right" if mendable else ""
        raise CatalogInDoubt(f"{counted(len(left), 'thing')} not as it should be{hint}")


def _repairs(count: int) -> str:
    return f" after {counted(count, 'repair')}" if count else ""


def _ending(outcome: Outcome) -> str:
    if outcome.repaired:
        return " [repaired]"
    if outcome.error:
        return f" [the repair failed: {outcome.error}]"
    return f" [{outcome.finding.advice}]" if outcome.finding.advice else ""


def _shown(outcome: Outcome) -> Json:
    from tapefs.check.process import found_of

    fields: Json = msgspec.to_builtins(found_of(outcome))
    return fields
