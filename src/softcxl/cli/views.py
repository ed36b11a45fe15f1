"""Commands that show a host as Linux's files do: `sysfs`, `iomem`, `events`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from softcxl.cli.booted import HOST, JSON, TOPOLOGY, booted, print_json
from softcxl.host.iomem import resources
from softcxl.host.sysfs import shown_of
from softcxl.host.sysfs.node import Attribute, Link
from softcxl.host.traces import to_json


@click.command()
@TOPOLOGY
@click.argument("path", default="bus/cxl/devices")
@JSON
@HOST
def sysfs(topology: str, path: str, as_json: bool, host_name: str | None) -> None:
    """Show PATH of the /sys that a host of TOPOLOGY has: one attribute's value, or all that is in a directory.

    PATH is below /sys, or begins with it; names and values are those of Linux. Of a directory each attribute is a
    line, and so is each link, with where it leads.
    """
    with booted(topology, host_name) as (_, system, _name):
        if as_json:
            print_json(system.sysfs.tree(path))
            return
        for where, one in system.sysfs.walk(path):
            if not where:
                click.echo(system.sysfs.read_bytes(path), nl=False)
            else:
                click.echo(f"{where}{_text(one)}")


def _text(one: Attribute | Link) -> str:
    if isinstance(one, Link):
        return f" -> /sys/{one.target}"
    shown = shown_of(one)
    if shown is None:
        return " (write only)"
    if isinstance(shown, dict):
        return f": {shown['errno']}"
    # a value of several lines, or of bytes, is one line here
    return f": {json.dumps(shown) if chr(10) in shown else shown}"


@click.command()
@TOPOLOGY
@JSON
@HOST
def iomem(topology: str, host_name: str | None, as_json: bool) -> None:
    """Show the CXL windows of a host of TOPOLOGY with their regions, as /proc/iomem does.

    With --json it is a list of {depth, start, end, name}, each ahead of those within it.
    """
    with booted(topology, host_name) as (_, system, _name):
        found = list(resources(system))
        if as_json:
            print_json([asdict(one) for one in found])
            return
        for one in found:
            click.echo(str(one))


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
    with booted(topology, host_name) as (_, system, _name):
        if poison:
            for one in system.memdevs.values():
                if (where := f"bus/cxl/devices/{one.name}/trigger_poison_list") in system.sysfs:
                    system.sysfs[where] = 1
        for found in system.events():
            click.echo(json.dumps(to_json(found), separators=(",", ":")))
