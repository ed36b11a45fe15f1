"""The verb that shows a switch as a whole: `tree`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.reach import Reach
from softcxl.cli.options import JSON
from softcxl.cli.tables import emit
from softcxl.spec.fm.switch import ConnectedDeviceType


@fm.command()
@JSON
@click.pass_obj
def tree(reach: Reach, as_json: bool) -> None:
    """Show a switch as a tree: virtual switches and what is bound to them, ports, devices and their logical devices."""
    name = str(reach.address)

    async def ask(switch: library.Switch) -> dict[str, Any]:
        virtual = [words.virtual_switch(one) for one in await switch.virtual_switches()]
        ports = []
        for one in await switch.ports():
            found = words.port(one)
            if one.connected_device_type == ConnectedDeviceType.TYPE_3_MLD:
                found["lds"] = await _logical_devices(switch.port(one.port))
            ports.append(found)
        return {"virtual_switches": virtual, "ports": ports}

    emit(as_json, reach.switch(ask), lambda found: _drawn(name, found))


async def _logical_devices(device: library.Device) -> list[dict[str, Any]] | None:
    """The logical devices of an MLD and their memory; None where it does not say."""
    try:
        found = await device.ld_allocations()
    except (library.CommandRefused, library.BadAnswer):
        return None
    return [
        {"ld": number, "range1": first, "range2": second}
        for number, (first, second) in enumerate(found.ranges)
    ]


def _drawn(name: str, found: dict[str, Any]) -> Tree:
    holders = {
        (vppb["port"], vppb["ld"]): f"vPPB {vppb['vppb']} of VCS {virtual['vcs']}"
        for virtual in found["virtual_switches"]
        for vppb in virtual["vppbs"]
    }
    virtual = [
        _branch(
            f"VCS {one['vcs']}",
            [tables.words(str(one["state"])), f"upstream port {one['usp']}"],
            [_vppb(vppb) for vppb in one["vppbs"]],
            "magenta",
        )
        for one in found["virtual_switches"]
    ]
    return _branch(name, [], [*virtual, *(_port(one, holders) for one in found["ports"])], "bold")


def _vppb(one: dict[str, Any]) -> Tree:
    title = f"vPPB {one['vppb']}"
    if one["port"] is None:
        return _branch(title, [tables.words(str(one["status"]))])
    to = f"port {one['port']}" if one["ld"] is None else f"LD {one['ld']} of port {one['port']}"
    return _branch(title, [to], style="green")


def _port(one: dict[str, Any], holders: dict[tuple[int | None, int | None], str]) -> Tree:
    title = f"port {one['port']}"
    if one["device"] == "none":
        return _branch(title, ["upstream" if one["state"] == "usp" else "empty"])
    facts = [tables.words(str(one["device"])), tables.lanes(one["link"]), holders.get((one["port"], None))]
    lds = [
        _branch(f"LD {ld['ld']}", [_memory(ld), holders.get((one["port"], ld["ld"]))], style="green")
        for ld in one.get("lds") or ()
    ]
    return _branch(title, facts, lds, "green")


def _memory(ld: dict[str, Any]) -> str:
    return (
        " and ".join(str(tables.size(ld[name])) for name in ("range1", "range2") if ld[name]) or "no memory"
    )


def _branch(title: str, facts: list[str | None], below: Sequence[Tree] = (), style: str = "dim") -> Tree:
    said = ", ".join(filter(None, facts))
    label = Text(title, style)
    if said:
        label.append(f": {said}", "default not bold")
    branch = Tree(label, guide_style="dim")
    branch.children.extend(below)
    return branch
