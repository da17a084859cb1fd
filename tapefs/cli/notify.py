"""`tapefs notify`: the channels by which people are told what happens."""

from __future__ import annotations

import click
import msgspec

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.errors import TapefsError


@click.group("notify", no_args_is_help=False, short_help="Channels by which you are told what happens; test them.")
def notify_command() -> None:
    """Tell people what happens: which channels there are, and whether they work.

    Channels stand in tapefs.toml under [[notify]]; see docs/notifications.md.
    """


@notify_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the channels, and how they have done."""
    with sidecar_of(place) as client:
        found = client.notices.channels()
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
    elif not found:
        click.echo("Nobody is told anything: write a channel into tapefs.toml, under [[notify]].")
    else:
        print_table(
            ("CHANNEL", "KIND", "LEADS TO", "DELIVERED", "WAITING", "GIVEN UP", "LAST ERROR"),
            [
                (each.name, each.kind, each.leads_to, each.delivered, each.waiting, each.given_up, each.error or "-")
                for each in found
            ],
        )


@notify_command.command("show")
@click.argument("name", metavar="CHANNEL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, name: str, as_json: bool) -> None:
    """Show a channel: what it delivers, and what it could not deliver."""
    with sidecar_of(place) as client:
        found = client.notices.channel(name)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    signed = ", signed" if found.is_signed else ""
    click.echo(f"{found.name}: {found.kind} to {found.leads_to}{signed}, set in {found.origin}")
    click.echo(f"tells of: {', '.join(found.events) or 'warnings and alarms'}")
    last = f", the last {found.delivered_at:%Y-%m-%d %H:%M}" if found.delivered_at else ""
    click.echo(f"delivered {found.delivered}{last}; waiting {found.waiting}, given up {found.given_up}")
    if found.deliveries:
        print_table(
            ("WHAT", "SINCE", "TRIED", "NEXT", "ERROR"),
            [
                (
                    each.notice.text,
                    f"{each.notice.at:%Y-%m-%d %H:%M}",
                    each.attempts,
                    "given up" if each.is_given_up else f"{each.next_at:%H:%M:%S}" if each.next_at else "now",
                    each.error or "-",
                )
                for each in found.deliveries
            ],
        )


@notify_command.command("test")
@click.argument("names", metavar="[CHANNEL]...", nargs=-1)
@click.pass_obj
def test_command(place: Place, names: tuple[str, ...]) -> None:
    """Send a test by some channels, or by all."""
    with sidecar_of(place) as client:
        wanted = names or [each.name for each in client.notices.channels()]
        results = [client.notices.try_channel(name) for name in wanted]
    for result in results:
        click.echo(f"{result.name}: {'delivered' if result.delivered else result.error}")
    failed = [result.name for result in results if not result.delivered]
    if failed:
        raise TapefsError(f"not delivered: {', '.join(failed)}")
    if not results:
        click.echo("There is no channel: write one into tapefs.toml, under [[notify]].")
