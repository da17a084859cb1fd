"""Asking for secrets at a terminal."""

from __future__ import annotations

import getpass
import warnings

import click

from tapefs.errors import UsageError


def secret(what: str, otherwise: str, *, is_new: bool = False, default: str | None = None) -> str:
    """Ask for a secret without showing it; a new one twice. Raises UsageError where no terminal can hide it.

    `otherwise` says how else it can be given.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            text: str = click.prompt(
                what,
                default=default,
                hide_input=True,
                show_default=False,
                confirmation_prompt="Once more" if is_new else False,
                err=True,
            )
    except getpass.GetPassWarning:
        raise UsageError(f"there is no terminal to ask at for the {what.lower()}: {otherwise}") from None
    return text
