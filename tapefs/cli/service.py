"""`tapefs serve` and `tapefs mount`: the long-running ones."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from tapefs.cli.place import Place
from tapefs.cli.values import Address
from tapefs.starting import import_without_rich, imports


@click.command("serve")
@click.option("--mount", "directory", type=click.Path(path_type=Path), metavar="DIR", help="Mount the archive, too.")
@click.option("--listen", type=Address(), metavar="HOST:PORT", help="For HTTP; else what tapefs.toml says.")
@click.option("--until-idle", is_flag=True, hidden=True, help="Without TCP, until no command needs it any more.")
@click.pass_obj
def serve_command(place: Place, directory: Path | None, listen: str | None, until_idle: bool) -> None:
    """Run the sidecar: HTTP, jobs, recalls and the library. Ends at SIGTERM and Ctrl-C."""
    with imports():
        import_without_rich("structlog")
        from sidecar.serve import serve

    home = place.home()
    address = None if until_idle else listen or home.settings.http.listen
    serve(home, listen=address, mount=directory, until_idle=until_idle)


@click.command("mount")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--allow-other", is_flag=True, help="Let other users in, each with his own permissions.")
@click.pass_obj
def mount_command(place: Place, directory: Path, allow_other: bool) -> None:
    """Mount the archive read-only, in the foreground. SIGTERM and Ctrl-C unmount it."""
    with imports():
        import_without_rich("structlog", "httpx")
        from tapefs.client.presence import connected
        from tapefs.logs import configure_logs
        from tapefs.mount.session import run_mount

    home = place.home()
    configure_logs()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # It tells every request.
    with connected(home, keep=True):
        run_mount(home, directory, allow_other=allow_other)
