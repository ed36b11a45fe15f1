"""Verbs of the MCTP control protocol: `control`."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.parameters import Number
from softcxl.cli.fm.reach import Reach
from softcxl.cli.options import JSON
from softcxl.cli.tables import emit
from softcxl.spec.mctp.control import BASE_VERSION, MctpVersion
from softcxl.spec.mctp.packet import MessageType


@fm.group()
def control() -> None:
    """The MCTP control protocol: endpoints at the address, and what messages they take."""


@control.command("endpoints")
@JSON
@click.pass_obj
def endpoints(reach: Reach, as_json: bool) -> None:
    """Show all endpoints at the address: IDs, UUIDs, message types and their versions."""

    async def ask(connection: library.Connection) -> list[dict[str, Any]]:
        return [await _endpoint(connection, eid) for eid in await connection.endpoint_ids()]

    def render(given: list[dict[str, Any]]) -> Any:
        headings = "endpoint", "name", "kind", "UUID", "messages", "MCTP"
        rows = (
            (
                one["eid"],
                one["name"] and Text(one["name"]),
                one["endpoint_type"],
                one["uuid"],
                ", ".join(
                    f"{tables.words(kind['name'])} {kind['versions'][-1]}"
                    for kind in one["message_types"]
                    if kind["versions"]
                ),
                one["mctp_versions"],
            )
            for one in given
        )
        return tables.table(*headings, rows=rows)

    emit(as_json, reach.connected(ask), render)


async def _endpoint(connection: library.Connection, eid: int) -> dict[str, Any]:
    """What the control protocol says of an endpoint; what it does not say is None."""
    found = await connection.endpoint_id(eid)
    types = []
    for kind in await connection.message_types(eid):
        name = str(words.name_of(MessageType, kind))
        versions = await _or_none(connection.versions(kind, eid))
        types.append({"type": kind, "name": name, "versions": list(map(version, versions or ()))})
    uuid = await _or_none(connection.endpoint_uuid(eid))
    base = await _or_none(connection.versions(BASE_VERSION, eid))
    names = {number: name for name, number in connection.names.items()}
    return {
        "eid": found.eid,
        "name": names.get(eid),
        "endpoint_type": "bus_owner_or_bridge" if found.type.endpoint_type == 1 else "simple",
        "id_type": ("dynamic", "static", "static_and_as_assigned", "static_and_changed")[found.type.id_type],
        "uuid": None if uuid is None else str(uuid),
        "message_types": types,
        "mctp_versions": list(map(version, base or ())),
    }


async def _or_none(asked: Any) -> Any:
    """What an endpoint answers, None where it does not have that message."""
    try:
        return await asked
    except library.EndpointRefused:
        return None


def version(one: MctpVersion) -> str:
    """A version as people write it: `1.3.1`."""
    digits = [_bcd(one.major), _bcd(one.minor)]
    if one.update != 0xFF:
        digits.append(_bcd(one.update))
    return ".".join(digits) + (chr(one.alpha) if one.alpha else "")


def _bcd(byte: int) -> str:
    return f"{byte & 0xF:x}" if byte >> 4 == 0xF else f"{byte:x}"


@control.command("set-eid")
@click.argument("new", type=Number("eid", 8, 0xFE))
@JSON
@click.pass_obj
def set_eid(reach: Reach, new: int, as_json: bool) -> None:
    """Give an endpoint the ID NEW. One that keeps its own is exit status 1."""
    found = reach.connected(lambda connection: connection.set_endpoint_id(new, reach.eid(connection)))
    accepted = found.status.rejected == 0
    data = {"eid": found.eid, "accepted": accepted}
    said = f"the endpoint has ID {found.eid}" if accepted else f"the endpoint keeps its ID, {found.eid}"
    emit(as_json, data, lambda _: said)
    if not accepted:
        click.get_current_context().exit(1)
