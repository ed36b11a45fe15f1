"""Memory that hosts have for themselves, for a lease: `grant`, `grants`, `renew`, `revoke`, of a server of ours."""

from __future__ import annotations

from typing import Any, Literal

import click

from softcxl.cli import grant_verbs as verbs
from softcxl.cli import tables
from softcxl.cli.booted import demand
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.reach import Reach
from softcxl.cli.options import JSON
from softcxl.cli.parameters import Size
from softcxl.cli.tables import emit
from softcxl.fabric.control import socket_of
from softcxl.fabric.hosts import Verb
from softcxl.wire.sizes import format_size

_NUMBER = click.IntRange(min=1)


@fm.command()
@click.argument("size", type=Size())
@click.argument("host")
@click.option(
    "--lease",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it stays the host's if nothing is heard of the host, nor the grant renewed.",
)
@click.option(
    "--kind",
    type=click.Choice(["ld", "extents"]),
    help="As a logical device of its own, or as extents of dynamic capacity; without it as there is room.",
)
@JSON
@click.pass_obj
def grant(
    reach: Reach, size: int, host: str, lease: float, kind: Literal["ld", "extents"] | None, as_json: bool
) -> None:
    """Give HOST SIZE bytes of memory for itself, for a lease.

    It is a logical device, bound to a free vPPB of the host's virtual switch, or dynamic capacity of a device that it
    has. When the lease runs out, the host loses it, whatever it does, before anybody else has it.
    """
    emit(as_json, _ask(reach, verbs.Grant(size, host, lease, kind)), lambda one: _table([one]))


@fm.command()
@JSON
@click.pass_obj
def grants(reach: Reach, as_json: bool) -> None:
    """Show what hosts have been granted.

    What a host could not be deprived of is `held`, with the reason, and tried again in so many seconds.
    """
    emit(as_json, _ask(reach, verbs.Grants()), _table)


@fm.command()
@click.argument("number", type=_NUMBER)
@JSON
@click.pass_obj
def renew(reach: Reach, number: int, as_json: bool) -> None:
    """Have the lease of grant NUMBER begin anew."""
    emit(as_json, _ask(reach, verbs.Renew(number)), lambda one: _table([one]))


@fm.command()
@click.argument("number", type=_NUMBER)
@JSON
@click.pass_obj
def revoke(reach: Reach, number: int, as_json: bool) -> None:
    """Take what grant NUMBER gave from its host, as if its lease had run out."""
    emit(as_json, _ask(reach, verbs.Revoke(number)), lambda one: f"grant {one['number']} is no more")


def _ask(reach: Reach, verb: Verb) -> Any:
    if reach.address is None or socket_of(reach.address) is None:
        raise click.UsageError("grants are a server's: --at or SOFTCXL_FM says unix:PATH")
    return demand(reach.address, None, verb)


def _table(given: list[dict[str, Any]]) -> Any:
    headings = "grant", "host", "size", "state", "seconds", "where"
    rows = (
        (one["number"], one["host"], format_size(one["size"]), one["state"], one["seconds"], _where(one))
        for one in given
    )
    return tables.table(*headings, rows=rows)


def _where(one: dict[str, Any]) -> str:
    if at := one.get("ld"):
        where = f"LD {at['ld']} of port {at['port']} of {at['switch']}"
    else:
        at = one["extents"]
        where = f"extents of port {at['port']} of {at['switch']}, tag {at['tag']}"
    return f"{where}: {one['reason']}" if one["reason"] else where
