"""`softcxl shell`: a Python prompt, or a program, with a fabric at hand."""

from __future__ import annotations

import atexit
import code
import os
import sys
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

import click

from softcxl.cli.options import HOST
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import socket_of
from softcxl.fabric.hosts import Call, Hosts
from softcxl.host.system import System
from softcxl.host.tree import tree as tree_of


@click.command()
@click.argument("topology", type=click.Path())
@click.option("-c", "--command", metavar="CODE", help="Execute CODE in place of a prompt.")
@HOST
@click.pass_context
def shell(ctx: click.Context, topology: str, command: str | None, host_name: str | None) -> None:
    """Open a Python prompt with the fabric of TOPOLOGY live.

    Names: `fabric`, `host`, `system` (the operating system booted on it), each device by its name (`-` becomes `_`),
    and `tree()`, `explain(HPA)`. Tab completes. With -c, or where stdin is no terminal, CODE or stdin is executed
    as a program: the exit status is 1 where it raises, or what it exits with.
    """
    if socket_of(topology) is not None:
        raise click.UsageError(f"{topology} is a server's fabric; a prompt has one of its own, of a file")
    with Fabric.load(topology) as fabric:
        hosts = Hosts(fabric, topology)
        name = hosts.host(host_name)
        system = Call(hosts, name, click.echo, lambda text: click.echo(text, nl=False, err=True)).system
        names = _names(fabric, system, name)
        if command is not None:
            ctx.exit(_execute(command, "<command>", names))
        if not sys.stdin.isatty():
            ctx.exit(_execute(sys.stdin.read(), "<stdin>", names))
        _complete(names)
        memdevs = ", ".join(system.memdevs) or "no memory devices"
        banner = (
            f"host {name} of {topology}: {memdevs}\n"
            f"names: {', '.join(names)}\n"
            'try:   region = system.create_region(); region.write(0, b"hello"); region.read(0, 5); tree()'
        )
        _Console(names).interact(banner, exitmsg="")


def _names(fabric: Fabric, system: System, host: str) -> dict[str, Any]:
    def tree() -> None:
        """Print what the host sees."""
        click.echo(str(tree_of(system, f"host {host}")))

    def explain(hpa: int) -> None:
        """Print the way of a host physical address."""
        click.echo(str(system.explain(hpa)))

    names: dict[str, Any] = {"fabric": fabric, "system": system, "host": fabric.hosts[host]}
    # A device called `system` is still fabric.devices["system"].
    return (
        {key.replace("-", "_"): one for key, one in fabric.devices.items()}
        | names
        | {
            "tree": tree,
            "explain": explain,
        }
    )


def _ours(error: BaseException) -> bool:
    return any(base.__module__.partition(".")[0] == "softcxl" for base in type(error).__mro__)


def _say(error: BaseException) -> None:
    """An error of ours is its sentence; of any other the traceback, from the first line that was typed."""
    if _ours(error):
        click.echo(f"{type(error).__name__}: {error}", err=True)
        return
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    click.echo("".join(traceback.format_exception(error.with_traceback(frames))), err=True, nl=False)


def _execute(source: str, name: str, names: dict[str, Any]) -> int:
    """Execute a program; its exit status."""
    try:
        exec(compile(source, name, "exec"), names)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        click.echo(str(end.code), err=True)
        return 1
    except Exception as error:  # noqa: BLE001  the user's program may fail in any way
        _say(error)
        return 1
    return 0


class _Console(code.InteractiveConsole):
    """A prompt at which an error of SoftCXL is one line, as it is on the command line."""

    def runcode(self, code: CodeType) -> None:
        try:
            exec(code, self.locals)
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001  Ctrl-C ends the line and not the prompt
            _say(error)


def _complete(names: dict[str, Any]) -> None:
    """Tab completes names, and what was typed before is there again, where Python has readline."""
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    history = home / "softcxl_history"
    try:
        readline.read_history_file(history)
    except OSError:
        pass

    def keep() -> None:
        try:
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(history)
        except OSError:
            pass  # a home that cannot be written to: there is no history then

    atexit.register(keep)
