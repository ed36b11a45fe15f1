"""Commands that show a host as Linux's files do: `sysfs`, `iomem`, `events`."""

from __future__ import annotations

import click

from softcxl.cli.booted import perform
from softcxl.cli.options import HOST, JSON, TOPOLOGY
from softcxl.cli.verbs import Events, Iomem, ShowSysfs


@click.command()
@TOPOLOGY
@click.argument("path", default="bus/cxl/devices")
@click.option("-w", "--write", metavar="TEXT", help="Write TEXT to the attribute at PATH.")
@JSON
@HOST
def sysfs(topology: str, path: str, write: str | None, as_json: bool, host_name: str | None) -> None:
    """Show PATH of the /sys that a host of TOPOLOGY has: one attribute's value, or all that is in a directory.

    PATH is below /sys, or begins with it; names and values are those of Linux. Of a directory each attribute is a
    line, and so is each link, with where it leads. What --write may write, and how it is refused, is as in Linux.
    """
    perform(topology, host_name, ShowSysfs(path, write, as_json))


@click.command()
@TOPOLOGY
@JSON
@HOST
def iomem(topology: str, host_name: str | None, as_json: bool) -> None:
    """Show the CXL windows of a host of TOPOLOGY with their regions, as /proc/iomem does.

    With --json it is a list of {depth, start, end, name}, each ahead of those within it.
    """
    perform(topology, host_name, Iomem(as_json))


@click.command()
@TOPOLOGY
@click.option("-L", "--poison", is_flag=True, help="List the poison of all memory devices, too.")
@JSON
@HOST
def events(topology: str, poison: bool, host_name: str | None, as_json: bool) -> None:
    """Fetch what the memory devices of a host of TOPOLOGY have in their event logs, and print it as `cxl monitor` does.

    One JSON object a line, with and without --json, with the fields of the kernel's tracepoints. The logs are empty
    then.
    """
    perform(topology, host_name, Events(poison))
