"""The command line: `softcxl COMMAND`.

Exit status:

    0     it worked
    1     it was understood and failed: the message says what and where
    2     bad usage, or a file that is wrong: nothing was started
    3     something that is needed is not on this machine: the message says how to get it
    70    an error inside SoftCXL; `--debug` shows where
    130   interrupted by Ctrl-C; 143 and 129 by SIGTERM and SIGHUP

`softcxl vm run` passes on the status of the command that ran in the guest. Errors are a sentence on stderr,
never a traceback, except with `--debug` or with SOFTCXL_DEBUG set.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

import softcxl
from softcxl.fabric.errors import sentences

#: Every command and where it is defined; imported only when it is asked for, so that each starts fast.
COMMANDS = {
    "check": "softcxl.cli.check:check",
    "list": "softcxl.cli.host:list_",
    "tree": "softcxl.cli.host:tree",
    "region": "softcxl.cli.host:region",
    "explain": "softcxl.cli.host:explain",
    "sysfs": "softcxl.cli.views:sysfs",
    "iomem": "softcxl.cli.views:iomem",
    "events": "softcxl.cli.views:events",
    "inject": "softcxl.cli.inject:inject",
    "shell": "softcxl.cli.shell:shell",
    "serve": "softcxl.cli.serve:serve",
    "doors": "softcxl.cli.serve:doors",
    "journal": "softcxl.cli.journal:journal",
    "fm": "softcxl.cli.fm:fm",
    "pool": "softcxl.cli.pool:pool",
    "vm": "softcxl.cli.vm:vm",
    "lab": "softcxl.cli.lab:lab",
}

#: What `--help` says of each: the first sentences of their own help, which stand here so that nothing is imported.
SUMMARIES = {
    "check": "Validate the file TOPOLOGY and show its fabric as a tree.",
    "list": "List what a host of TOPOLOGY sees, as `cxl list` would on it.",
    "tree": "Show what a host of TOPOLOGY sees as a tree: windows, regions, ports, memory devices.",
    "region": "Make and take apart regions.",
    "explain": "Say where ADDRESS, a host physical address, goes: each window, port, switch and decoder with its "
    "arithmetic.",
    "sysfs": "Show PATH of the /sys that a host of TOPOLOGY has: one attribute's value, or all that is in a "
    "directory.",
    "iomem": "Show the CXL windows of a host of TOPOLOGY with their regions, as /proc/iomem does.",
    "events": "Fetch what the memory devices of a host of TOPOLOGY have in their event logs, and print it as "
    "`cxl monitor` does.",
    "inject": "Play the file SCENARIO over the fabric of TOPOLOGY: faults at their times, and what is expected then.",
    "shell": "Open a Python prompt with the fabric of TOPOLOGY live.",
    "serve": "Keep the fabric of TOPOLOGY live, and serve it at a control socket.",
    "doors": "Open the doors by which a guest comes to the devices of a server's host, and print them as JSON.",
    "journal": "Print what happened to the fabric of TOPOLOGY, in order: a line each, with its number and when (UTC).",
    "fm": "Manage a fabric by the FM API: switches, virtual switches, logical devices, dynamic capacity.",
    "pool": "Regions of a pool's memory: what there is, and what is in them.",
    "vm": "Virtual machines whose CXL devices are served by this program.",
    "lab": "QEMU, a kernel and its tools: what there is, and how to get it.",
}

INTERNAL_ERROR = 70
INTERRUPTED = 130


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class Options:
    """What was asked for ahead of the command."""

    def __init__(self) -> None:
        self.debug = os.environ.get("SOFTCXL_DEBUG", "") not in ("", "0")


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 failed, 2 bad usage or a wrong file, 3 something needed is missing, "
    "70 internal error, 130 interrupted.",
)
@click.version_option(softcxl.__version__, prog_name="softcxl", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show Python tracebacks (also: SOFTCXL_DEBUG=1).")
@click.pass_obj
def cli(options: Options, debug: bool) -> None:
    """CXL devices in Python that an unmodified Linux drives as hardware."""
    options.debug |= debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; `arguments` are `sys.argv[1:]` unless given."""
    options = Options()
    if (
        logging.lastResort is not None
    ):  # warnings, where nobody has set up logging: a sentence like all others
        logging.lastResort.setFormatter(logging.Formatter("softcxl: %(message)s"))
    for name in ("stdout", "stderr"):
        if (
            getattr(sys, name) is None
        ):  # closed by who started us (`>&-`): what would be said there is not wanted
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123  for as long as the process lasts
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(
                errors="backslashreplace"
            )  # names come in letters that a terminal may not have
    try:
        given = None if arguments is None else list(arguments)
        status = cli.main(given, prog_name="softcxl", standalone_mode=False, obj=options)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001  the last line of defence: whatever it is becomes a sentence
        return _failed(error, options)
    return status if isinstance(status, int) else 0


def _failed(error: Exception, options: Options) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "softcxl"
        sentence = error.format_message().removesuffix(".")
        click.echo(f"softcxl: {sentence} ({command} --help says what is right)", err=True)
        return error.exit_code
    if isinstance(error, click.ClickException):
        click.echo(f"softcxl: {error.format_message()}", err=True)
        return error.exit_code
    if isinstance(error, click.Abort) or _interrupted(error):
        click.echo("softcxl: interrupted", err=True)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone (`| head`): nothing to say, nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if options.debug:
        traceback.print_exception(error)
    told = sentences(error)
    if told is not None:
        lines, status = told
        for line in lines:
            click.echo(line, err=True)
        return status
    hint = "" if options.debug else "; --debug shows where"
    click.echo(f"softcxl: internal error: {type(error).__name__}: {error}{hint}", err=True)
    return INTERNAL_ERROR


def _interrupted(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C: while a class is made, Python before 3.12 makes a RuntimeError of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False
