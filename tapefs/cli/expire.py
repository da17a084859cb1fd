"""`tapefs expire`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import click

from catalog.ids import SetId
from tapefs.cli.output import Json, iso_time, print_json, print_table, short_ids, short_time, size
from tapefs.cli.place import Place, ledger_of, sidecar_of
from tapefs.retention.expire import verdicts_of
from tapefs.retention.policy import Verdict, Why, Wish
from tapefs.vfs.roster import Roster


@click.command("expire", short_help="Tell which sets have outlived their retention; let them go.")
@click.argument("wanted", metavar="[SET...]", nargs=-1)
@click.option("--failed", is_flag=True, help="What failed goes at once, and not only after a week.")
@click.option("--apply", is_flag=True, help="Let them go; without it nothing changes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def expire_command(place: Place, wanted: tuple[str, ...], failed: bool, apply: bool, as_json: bool) -> None:
    """Tell which backup sets have outlived their retention, why the others stay, and let go of them.

    A SET that is named goes whatever its age, unless another one builds on it or it is an archive. What lies on tape is
    not erased.
    """
    look = _look_here if place.is_here else _look_there
    known, wish, verdicts = look(place, wanted, failed)
    expired: list[SetId] | None = None
    freed_bytes = 0
    if apply:
        with sidecar_of(place) as client:
            outcome = client.expire(sorted(wish.named), failed=failed)
        expired, freed_bytes = outcome.expired, outcome.freed_bytes
    if as_json:
        print_json([_json(verdict, expired) for verdict in verdicts])
    else:
        # Sets may have begun between the two looks.
        _print(verdicts, expired, short_ids(known | {each.backup_set.set_id for each in verdicts}))
        click.echo(_summary(verdicts, expired, freed_bytes), err=True)


def _look_here(place: Place, wanted: Sequence[str], failed: bool) -> tuple[set[SetId], Wish, list[Verdict]]:
    """Return the ids of all sets, what is asked for, and what would become of the sets."""
    with ledger_of(place) as ledger:
        sets = ledger.backup_sets()
        roster = Roster(sets)
        wish = Wish(named=frozenset(roster.find_any(text).set_id for text in wanted), failed=failed)
        return {each.set_id for each in sets}, wish, verdicts_of(ledger, time.time_ns(), wish)


def _look_there(place: Place, wanted: Sequence[str], failed: bool) -> tuple[set[SetId], Wish, list[Verdict]]:
    """Return the same of a sidecar elsewhere."""
    from tapefs.cli.elsewhere import set_called

    with sidecar_of(place) as client:
        wish = Wish(named=frozenset(set_called(client, text).set_id for text in wanted), failed=failed)
        told = client.verdicts(sorted(wish.named), failed=failed)
        records = {each.set_id: each.record() for each in client.sets()}
        # One that goes at this moment is not listed any more.
        gone = {each.set_id: client.set(each.set_id).record() for each in told if each.set_id not in records}
        verdicts = [Verdict((records | gone)[each.set_id], Why(each.why), each.reason) for each in told]
        return set(records), wish, verdicts


def _print(verdicts: list[Verdict], expired: list[SetId] | None, short: Mapping[str, str]) -> None:
    if not verdicts:
        click.echo("No sets yet: make one with `tapefs backup DIR`.")
        return
    print_table(
        ("SET", "NAME", "TYPE", "STARTED", "STATE", "VERDICT", "REASON"),
        [
            (
                short[verdict.backup_set.set_id],
                verdict.backup_set.name,
                verdict.backup_set.type,
                short_time(verdict.backup_set.started_at_ns),
                verdict.backup_set.state.value,
                _word(verdict, expired),
                verdict.reason,
            )
            for verdict in verdicts
        ],
    )


def _word(verdict: Verdict, expired: list[SetId] | None) -> str:
    if not verdict.goes:
        return "stays"
    if expired is None:
        return "goes"
    return "gone" if verdict.backup_set.set_id in expired else "stays, held since"


def _summary(verdicts: list[Verdict], expired: list[SetId] | None, freed_bytes: int) -> str:
    if expired is None:
        going = sum(verdict.goes for verdict in verdicts)
        return f"expire: {going} of {len(verdicts)} sets may go" + ("; --apply lets them go" if going else "")
    return f"expire: {len(expired)} of {len(verdicts)} sets have gone, {size(freed_bytes)} freed in the state folder"


def _json(verdict: Verdict, expired: list[SetId] | None) -> Json:
    each = verdict.backup_set
    return {
        "set_id": each.set_id,
        "name": each.name,
        "type": each.type,
        "state": each.state.value,
        "started_at": iso_time(each.started_at_ns),
        "goes": verdict.goes,
        "expired": expired is not None and each.set_id in expired,
        "why": verdict.why.value,
        "reason": verdict.reason,
    }
