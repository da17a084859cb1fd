"""`tapefs tape export` and `import`: through the port of a library that has a robot."""

from __future__ import annotations

import click
import msgspec

from tapefs.cli.output import printable
from tapefs.cli.place import Place
from tapefs.sizes import counted


class _Moved(msgspec.Struct, frozen=True):
    barcode: str
    place: str


@click.command("export")
@click.argument("tapes", metavar="TAPE...", nargs=-1, required=True)
@click.pass_obj
def export_command(place: Place, tapes: tuple[str, ...]) -> None:
    """Have the robot bring tapes to its ports.

    There somebody takes them out. A tape in a drive that rests is brought, too; one that is in use is refused. Where it
    goes from there is told by `tapefs tape move`.
    """
    from tapefs.client.api import decode
    from tapefs.client.presence import connected
    from tapefs.client.transport import Transport

    home = place.home()
    with connected(home):
        transport = Transport(home.socket, timeout_s=MOVE_S)
        for tape in tapes:
            moved = decode(transport.request("POST", "/api/v1/ports/export", {"tape": tape}), _Moved)
            click.echo(f"{printable(tape)} is in {moved.place}: take it out", err=True)


@click.command("import")
@click.pass_obj
def import_command(place: Place) -> None:
    """Have the robot take in what lies in its ports.

    Tapes that the catalog does not know are entered as blank. What is on them is told by `tapefs tape identify`, and
    taken into the catalog by `tapefs import`.
    """
    from tapefs.client.api import decode
    from tapefs.client.presence import connected
    from tapefs.client.transport import Transport

    home = place.home()
    with connected(home):
        answer = Transport(home.socket, timeout_s=MOVE_S).request("POST", "/api/v1/ports/import")
        taken = decode(answer, list[_Moved])
    for each in taken:
        click.echo(f"{printable(each.barcode)}  {each.place}")
    click.echo(f"{counted(len(taken), 'tape')} taken in", err=True)


#: A tape may have to be rewound first, and a robot has other moves before.
MOVE_S = 900.0
