"""Every command and option, from click."""

from __future__ import annotations

from collections.abc import Iterator

import click

import softcxl.cli
from reference.text import docstring, table


def page() -> str:
    parts = ["# Command line", docstring(softcxl.cli)]
    for path, command in commands():
        parts.append(f"## {path}\n\n```text\n{_usage(path, command)}\n```\n\n{_help(command)}")
        options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
        if options:
            rows = [(_spelled(one), one.help or "") for one in options]
            parts.append(table(("Option", "Meaning"), rows))
    return "\n\n".join(parts)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it, groups before their members."""
    yield from _below("softcxl", softcxl.cli.cli)


def _below(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _below(f"{path} {name}", inner)


def _usage(path: str, command: click.Command) -> str:
    pieces = command.collect_usage_pieces(click.Context(command))
    return " ".join([path, *pieces])


def _help(command: click.Command) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))


def _spelled(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    metavar = (
        ""
        if option.is_flag or option.count
        else f" `{option.make_metavar(click.Context(click.Command('x')))}`"
    )
    return names + metavar
