"""`tapefs staging`: what is staged, and whether it is right."""

from __future__ import annotations

import time

import click

from tapefs.cli.output import print_json, size
from tapefs.cli.place import Place, ledger_of
from tapefs.cli.progress import reporting
from tapefs.errors import StagingDamaged
from tapefs.sizes import counted


@click.group("staging", invoke_without_command=True, short_help="Show the staging area, or check what is in it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def staging_command(ctx: click.Context, as_json: bool) -> None:
    """Show the staging area, where what was read from tape lies until the room is needed, or look after it."""
    if ctx.invoked_subcommand is None:
        _show(ctx.obj, as_json=as_json)


def _show(place: Place, *, as_json: bool) -> None:
    from tapefs.staging.area import StagingArea
    from tapefs.staging.pinned import FrameLengths, united

    home = place.home()
    limit_bytes, percent = home.settings.staging.limit_bytes, home.settings.staging.pinned_percent
    census = StagingArea(home.staging).census()
    with ledger_of(place) as ledger:
        pins = [pin for pin in ledger.pins() if pin.expires_at_ns > time.time_ns()]
        pinned_bytes = FrameLengths(ledger).of(united(pins))
    if as_json:
        print_json(
            {
                "limit_bytes": limit_bytes or None,
                "used_bytes": census.used_bytes,
                "pinned_bytes": pinned_bytes,
                "pins": len(pins),
                **census.counts(),
            }
        )
        return
    limit = size(limit_bytes) if limit_bytes else "a quarter of what was free when the sidecar started"
    click.echo(f"limit   {limit}")
    click.echo(
        f"used    {size(census.used_bytes)}: {counted(census.frames, 'frame')} of {counted(census.segments, 'segment')}"
    )
    click.echo(f"pinned  {size(pinned_bytes)} by {counted(len(pins), 'pin')}, of at most {percent} % of the limit")
    if census.doubtful:
        click.echo(f"        {census.doubtful:,} frames from before the machine was started are still to be compared")


@staging_command.command("check")
@click.option("--repair", is_flag=True, help="Drop what is wrong, so that it comes from tape again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check_command(place: Place, repair: bool, as_json: bool) -> None:
    """Compare what is staged with its checksums.

    They were taken when it came from tape.     Reading may go on meanwhile. The exit code is 1 when anything is
    wrong, also if --repair has dropped it.
    """
    from tapefs.staging.area import StagingArea
    from tapefs.staging.check import check_staging

    folder = place.home().staging
    total = StagingArea(folder).used_bytes()
    done = 0
    with reporting("check") as reporter:

        def progress(segment_id: str, count: int) -> None:
            nonlocal done
            done += count
            reporter.update(done, max(total, done), f"{size(done)}, segment {segment_id}")

        findings = check_staging(folder, repair=repair, progress=progress)
    if as_json:
        print_json(
            {
                "segments": findings.segments,
                "frames": findings.frames,
                "bytes": findings.bytes,
                "wrong": [{"segment": segment, "frame": frame} for segment, frame in findings.wrong],
                "unusable": findings.unusable,
                "repaired": repair,
            }
        )
    else:
        for segment, frame in findings.wrong:
            click.echo(f"segment {segment}, frame {frame}: not what came from tape")
        for segment in findings.unusable:
            click.echo(f"segment {segment}: its files cannot be used")
        checked = f"{counted(findings.frames, 'frame')} of {counted(findings.segments, 'segment')}"
        click.echo(f"check: {checked}, {size(findings.bytes)}{', all right' if findings.is_clean else ''}", err=True)
    if not findings.is_clean:
        what = f"{len(findings.wrong):,} frames are wrong, {len(findings.unusable):,} segments cannot be used"
        raise StagingDamaged(f"{what}; " + ("all that was dropped" if repair else "--repair drops that"))
