"""`tapefs completion`: what has a shell complete commands and options."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")
#: The variable by which the shell asks us, as click names it.
VARIABLE = "_TAPEFS_COMPLETE"


@click.command("completion", short_help="Print what has a shell complete commands and options.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print what has a shell complete commands and options. Once and for all:

    \b
    bash  tapefs completion bash > /etc/bash_completion.d/tapefs
    zsh   tapefs completion zsh > /usr/local/share/zsh/site-functions/_tapefs
    fish  tapefs completion fish > ~/.config/fish/completions/tapefs.fish

    For this shell only: `source <(tapefs completion bash)`.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise AssertionError(f"click knows no {shell}")
    click.echo(kind(ctx.find_root().command, {}, "tapefs", VARIABLE).source())
