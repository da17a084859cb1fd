"""What listings say when the ledger has something running, and nobody is there who runs it. Blocking for a moment."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import click

from tapefs.home import Home
from tapefs.socket_name import socket_name

#: A sidecar takes a connection in a millisecond, however busy it is; one that takes longer is there.
_PATIENCE_S = 1.0
_WAY_ON = "`tapefs serve` starts one, and so does the next `tapefs backup`"


def is_answered(home: Home) -> bool:
    """Is there a sidecar? One that may not be asked, or takes long, counts as one."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_PATIENCE_S)
        try:
            with socket_name(home.socket) as name:
                asking.connect(name)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def tell_standstill(home: Home, running: Sequence[str], *, queued: bool = False, err: bool = False) -> None:
    """Say so when something is shown as running, or queued, and no sidecar answers; `err`: on stderr."""
    if not (running or queued) or is_answered(home):
        return
    if running:
        goes = "were interrupted and go" if len(running) > 1 else "was interrupted and goes"
        click.echo(f"No sidecar answers: {' and '.join(running)} {goes} on when one runs. {_WAY_ON}.", err=err)
    else:
        click.echo(f"No sidecar answers: what is queued begins when one runs. {_WAY_ON}.", err=err)
