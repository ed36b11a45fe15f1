"""The verb that shows a pool as a whole, or one region of it: `stat`."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from softcxl.cli.options import JSON
from softcxl.cli.pool import words
from softcxl.cli.pool.group import Reach, pool
from softcxl.cli.pool.regions import called, health
from softcxl.cli.tables import emit, size, table
from softcxl.cli.work import shown
from softcxl.wire.sizes import UNITS

if TYPE_CHECKING:
    from softcxl.pool.session import Pool

_STYLES = {"healthy": "default", "rebuilding": "yellow", "lost": "red"}

LOOKS = 0.2
"""Seconds between two looks at what is being rebuilt."""


@pool.command()
@click.argument("name", required=False)
@click.option(
    "--wait", is_flag=True, help="First wait until all that is being rebuilt is whole again, with progress."
)
@JSON
@click.pass_obj
def stat(reach: Reach, name: str | None, wait: bool, as_json: bool) -> None:
    """Show the pool: its memory device by device with the copies on it, and its clients. With NAME, one region."""
    with reach.connect() as session:
        if wait:
            _await(session, name)
        found = _whole(session) if name is None else _one(session, name)
    emit(as_json, found, _pool if name is None else _region)


def _await(session: Pool, name: str | None) -> None:
    """Wait until nothing is being rebuilt."""
    with shown() as progress:
        while True:
            found = [one for one in words.regions(session) if name in (None, one["name"])]
            busy = [one for one in found if any(copy["state"] == "rebuilding" for copy in one["copies"])]
            if not busy:
                return
            under_way = session.tell("rebuild")["rebuilding"]
            if under_way:
                progress(_rebuilt(under_way[0]), under_way[0]["done"] / under_way[0]["size"])
            else:
                progress(f"rebuilding {called(busy[0]) if len(busy) == 1 else f'{len(busy)} regions'}")
            time.sleep(LOOKS)


def _whole(session: Pool) -> dict[str, Any]:
    return {
        "server": session.tell("server"),
        "sources": session.tell("sources"),
        "regions": words.regions(session),
        "clients": session.tell("clients"),
        "rebuild": session.tell("rebuild"),
    }


def _one(session: Pool, name: str) -> dict[str, Any]:
    with session.open(name) as region:
        clients = {one["slot"]: one["name"] for one in session.tell("clients")}
        found = words.region(region.info, clients)
    names = {source["number"]: source["name"] for source in session.tell("sources")}
    return found | {"copies": [copy | {"source": names[copy["source"]]} for copy in found["copies"]]}


def _pool(found: dict[str, Any]) -> RenderableType:
    server = found["server"]
    facts = f": process {server['pid']}, started {server['epoch']} times, lease {server['lease']:g} s"
    tree = Tree(Text.assemble(("pool", "bold"), facts), guide_style="dim")
    copies = defaultdict(list)
    for one in found["regions"]:
        for number, copy in enumerate(one["copies"]):
            copies[copy["source"]].append((one, number))
    for source in found["sources"]:
        branch = tree.add(_source(source))
        for one, number in copies[source["number"]]:
            branch.add(_copy(one, number))
    for one in found["rebuild"]["rebuilding"]:
        tree.add(Text(f"{_rebuilt(one)}, {one['done'] * 100 // one['size']} %", "yellow"))
    for one in found["rebuild"]["waiting"]:
        tree.add(Text(f"{_what(one)} waits to be rebuilt: {one['why']}", "red"))
    clients = table(
        "client",
        "slot",
        "process",
        "host",
        "has",
        "quota",
        rows=(
            (
                Text(one["name"]),
                one["slot"],
                one["pid"] or None,
                one["host"] or None,
                size(one["used"]),
                size(one["quota"]),
            )
            for one in found["clients"]
        ),
    )
    return Group(tree, Text(), clients)


def _what(one: dict[str, Any]) -> str:
    return str(one["name"] or f"[{one['region']}]")


def _rebuilt(one: dict[str, Any]) -> str:
    return f"{_what(one)}: copy {one['copy'] + 1} is made on {one['source']}"


def _source(source: dict[str, Any]) -> Text:
    style = "bold green" if source["state"] == "healthy" else "bold red"
    facts = [
        source["state"] + (f" ({source['reason']})" if source.get("reason") else ""),
        f"{about(source['available'])} of {about(source['size'])} free",
    ]
    if source.get("held_back"):
        facts.append(f"{about(source['held_back'])} cannot be cleared ({source['why_held_back']})")
    if source["switch"]:
        facts.append(f"at {source['switch']}")
    return Text.assemble((source["name"], style), f": {', '.join(facts)}")


def about(bytes_: int) -> str:
    """Bytes in the largest unit that they are one of, to a tenth: free space is rarely a round number."""
    for unit, count in reversed(UNITS.items()):
        if bytes_ >= count:
            return f"{bytes_ / count:.1f}".removesuffix(".0") + unit
    return "0"


def _copy(one: dict[str, Any], number: int) -> Text:
    copy, count = one["copies"][number], len(one["copies"])
    facts = [str(size(one["size"]))]
    if count > 1:
        facts.append(f"copy {number + 1} of {count}")
    if copy["state"] != "healthy":
        facts.append(copy["state"])
    if copy["poison"]:
        facts.append("poison")
    return Text.assemble((called(one), _STYLES[copy["state"]]), f": {', '.join(facts)}")


def _region(one: dict[str, Any]) -> RenderableType:
    facts = [
        str(size(one["size"])),
        health(one),
        f"owner {one['owner'] or 'none'}",
        f"others {one['others']}",
    ]
    if one["atomic"]:
        facts.append("atomic")
    tree = Tree(Text.assemble((called(one), "bold"), f": {', '.join(facts)}"), guide_style="dim")
    for number, copy in enumerate(one["copies"], 1):
        poison = ", poison" if copy["poison"] else ""
        state = Text(copy["state"], _STYLES[copy["state"]])
        tree.add(
            Text.assemble(f"copy {number}: ", state, f"{poison}, at {copy['offset']:#x} of {copy['source']}")
        )
    return tree
