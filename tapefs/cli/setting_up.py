"""`tapefs init` and `tapefs version`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click
from click.core import ParameterSource

from tapefs import __version__
from tapefs.cli.output import size
from tapefs.cli.place import Place
from tapefs.cli.values import GENERATIONS, Motion, Size
from tapefs.errors import UsageError
from tapefs.home import default_home

if TYPE_CHECKING:
    from tapefs.setup_home import NewHome

#: A tape has to hold labels and a segment in front of its early warning, which comes 8 MiB before its end at least.
LEAST_TAPE_BYTES = 16 * 1024**2

#: Options that make sense for one kind of library only.
_VIRTUAL_ONLY = ("tapes", "tape_size", "drives", "motion")
_REAL_ONLY = (
    "drive",
    "changer",
    "any_filesystem",
    "chap_user",
    "chap_secret_file",
    "chap_target_user",
    "chap_target_secret_file",
)


class _Given(TypedDict):
    """The options of `tapefs init`."""

    tapes: int
    tape_size: int
    drives: int
    generation: str
    motion: str
    driver: Literal["virtual", "iscsi", "st", "itdt", "ltfs"]
    drive: tuple[str, ...]
    changer: str
    any_filesystem: bool
    chap_user: str
    chap_secret_file: str
    chap_target_user: str
    chap_target_secret_file: str


@click.command("init", short_help="Make a state folder, with a virtual library or for a real one.")
@click.option("--tapes", type=click.IntRange(1, 9999), default=8, show_default=True, help="Blank tapes in the library.")
@click.option("--tape-size", type=Size(LEAST_TAPE_BYTES), default="2GiB", show_default=True, help="Size of each tape.")
@click.option("--drives", type=click.IntRange(1, 64), default=1, show_default=True, help="Drives in the library.")
@click.option("--generation", type=click.Choice(GENERATIONS, case_sensitive=False), default="lto9", show_default=True)
@click.option(
    "--motion",
    type=Motion(),
    default="account",
    show_default=True,
    metavar="account|real|scaled:N",
    help="The time that a real drive would take: only counted, waited for, or waited for N times faster.",
)
@click.option(
    "--driver",
    type=click.Choice(("virtual", "iscsi", "st", "itdt", "ltfs")),
    default="virtual",
    show_default=True,
    help="Kind of library.",
)
@click.option("--drive", metavar="ADDRESS", multiple=True, help="A real drive; once for each. See docs/drives.md.")
@click.option("--changer", metavar="ADDRESS", default="", help="The changer of a real library.")
@click.option("--any-filesystem", is_flag=True, help="With --driver ltfs: disks with any file system are media, too.")
@click.option("--chap-user", metavar="NAME", default="", help="Log in to iSCSI targets as.")
@click.option("--chap-secret-file", metavar="FILE", default="", help="File with the secret for that.")
@click.option("--chap-target-user", metavar="NAME", default="", help="Who the targets must prove to be.")
@click.option("--chap-target-secret-file", metavar="FILE", default="", help="File with the secret for that.")
@click.pass_context
def init_command(context: click.Context, /, **given: Unpack[_Given]) -> None:
    """Make a state folder with a virtual tape library, or for a real one."""
    from tapefs.setup_home import create_home

    is_virtual = given["driver"] == "virtual"
    for name in _REAL_ONLY if is_virtual else _VIRTUAL_ONLY:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            kind = "a virtual library" if is_virtual else "a real library, which has its own"
            raise UsageError(f"--{name.replace('_', '-')} is not for {kind}: see --driver")
    path = context.ensure_object(Place).path
    wanted = _virtual(path, given) if is_virtual else _real(path, given)
    home = create_home(wanted, time.time_ns())
    click.echo(f"{home.path}: made, {_described(wanted)}.")
    command = "tapefs" if home.path == default_home() else f"tapefs --home {shlex.quote(str(home.path))}"
    click.echo(f"Next: {command} backup DIR")


def _described(wanted: NewHome) -> str:
    tapes, drives = wanted.tapes, wanted.drives if wanted.real is None else wanted.real.drive_count
    generation = wanted.generation if wanted.real is None else wanted.real.generation
    text = f"{drives} LTO{generation} drive{'s' * (drives > 1)}"
    if wanted.real is not None:
        return f"for a library with {text}"
    return f"with {tapes} blank tape{'s' * (tapes > 1)} of {size(wanted.tape_bytes)} and {text}"


def _virtual(path: Path, given: _Given) -> NewHome:
    from tapefs.setup_home import NewHome

    return NewHome(
        path=path,
        tapes=given["tapes"],
        tape_bytes=given["tape_size"],
        drives=given["drives"],
        generation=_generation(given),
        motion=given["motion"],
    )


def _real(path: Path, given: _Given) -> NewHome:
    """Raises UsageError for what no library can be."""
    from tapefs.settings.library import IscsiSettings, LibrarySettings
    from tapefs.setup_home import NewHome

    login = IscsiSettings(
        user=given["chap_user"],
        secret_file=_absolute(given["chap_secret_file"]),
        target_user=given["chap_target_user"],
        target_secret_file=_absolute(given["chap_target_secret_file"]),
    )
    try:
        library = LibrarySettings(
            driver=given["driver"],
            drives=given["drive"],
            changer=given["changer"],
            generation=_generation(given),
            iscsi=login,
            any_filesystem=given["any_filesystem"],
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return NewHome(path=path, real=library)


def _generation(given: _Given) -> int:
    return int(given["generation"].removeprefix("lto"))


def _absolute(file: str) -> str:
    """What is written into the settings does not depend on where the command ran."""
    return str(Path(file).absolute()) if file else ""


@click.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(f"tapefs {__version__}")
