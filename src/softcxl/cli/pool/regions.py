"""Verbs that make and give back regions: `list`, `allocate`, `free`."""

from __future__ import annotations

from typing import Any, Literal

import click
from rich.console import RenderableType

from softcxl.cli.options import JSON
from softcxl.cli.parameters import Size
from softcxl.cli.pool import words
from softcxl.cli.pool.group import Reach, pool
from softcxl.cli.tables import emit, print_json, size, table
from softcxl.pool.errors import NoServer, PoolError


@pool.command("list")
@JSON
@click.pass_obj
def list_(reach: Reach, as_json: bool) -> None:
    """List the regions that there are: their sizes, copies and owners, and whether all copies are healthy."""
    with reach.connect() as session:
        found = words.regions(session)
    emit(as_json, found, _regions)


def _regions(found: list[dict[str, Any]]) -> RenderableType:
    if not found:
        return "no regions"
    return table(
        "region",
        "size",
        "copies",
        "health",
        "owner",
        "others",
        rows=(
            (called(one), size(one["size"]), len(one["copies"]), health(one), one["owner"], one["others"])
            for one in found
        ),
    )


def called(one: dict[str, Any]) -> str:
    """The region's name, or its number in brackets where it has none."""
    return str(one["name"] or f"[{one['index']}]")


def health(one: dict[str, Any]) -> str:
    """What people look for in a column of many: `ok`, or what is not."""
    states = [copy["state"] for copy in one["copies"]]
    told = [
        f"{states.count(state)} of {len(states)} {state}"
        for state in ("lost", "rebuilding")
        if state in states
    ]
    if any(copy["poison"] for copy in one["copies"]):
        told.append("poison")
    return ", ".join(told) or "ok"


@pool.command()
@click.argument("name")
@click.argument("bytes_", metavar="SIZE", type=Size())
@click.option(
    "--replicas",
    type=click.IntRange(1, 8),
    default=1,
    metavar="N",
    help="How many copies, on devices of their own; without it 1.",
)
@click.option(
    "--policy",
    type=click.Choice(["spread", "pack"]),
    default="spread",
    help="Which devices come first: those with the most room (spread, if not said) or with the least (pack).",
)
@click.option(
    "--separate",
    type=click.Choice(["device", "switch"]),
    default="device",
    help="What no two copies share: a device, if not said, or a switch.",
)
@click.option(
    "--others",
    type=click.Choice(["private", "read", "write"]),
    default="write",
    help="What clients of other names may do with it; write, if not said.",
)
@click.option("--atomic", is_flag=True, help="Writes are all or nothing also while there is but one copy.")
@JSON
@click.pass_obj
def allocate(
    reach: Reach,
    name: str,
    bytes_: int,
    replicas: int,
    policy: Literal["spread", "pack"],
    separate: Literal["device", "switch"],
    others: Literal["private", "read", "write"],
    atomic: bool,
    as_json: bool,
) -> None:
    """Allocate SIZE bytes as the region NAME. It stays until it is freed, whoever comes and goes."""
    with reach.connect() as session:
        region = session.allocate(
            bytes_,
            name=name,
            replicas=replicas,
            policy=policy,
            separate=separate,
            mode=others,
            atomic=atomic,
        )
        found = {"name": name, "size": region.size, "copies": replicas}
    emit(
        as_json, found, lambda one: f"{name}: {size(one['size'])}" + (f", {replicas} copies" * (replicas > 1))
    )


@pool.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@JSON
@click.pass_obj
def free(reach: Reach, names: tuple[str, ...], as_json: bool) -> None:
    """Free the regions of those names: at once for who asks later, and when nobody uses them any more for their memory.

    Only its owner frees a region: a client of the name (--as) that allocated it. One that cannot be freed keeps none of
    the others.
    """
    freed, refused = [], []
    with reach.connect() as session:
        for name in names:
            try:
                session.free(name)
            except NoServer:
                raise
            except PoolError as error:
                refused.append(str(error))
            else:
                freed.append(name)
    if as_json:
        print_json({"freed": freed})
    if refused:
        raise click.ClickException("; ".join(refused))
