"""Verbs of the command interface itself: `commands`, `background`, `abort`, `limit`, `clock`, `raw`, `tunnel`."""

from __future__ import annotations

import time
from typing import Any

import click

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.parameters import LD, PORT, Number, Opcode
from softcxl.cli.fm.reach import Reach, Target, targeted
from softcxl.cli.options import JSON
from softcxl.cli.parameters import Hex
from softcxl.cli.tables import dump, emit, moment
from softcxl.fm import Answer, CommandRefused
from softcxl.fm.channel import naming
from softcxl.fm.errors import return_code
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.registry import COMMANDS, NAMES
from softcxl.wire import LayoutError, to_plain


@fm.command()
@targeted
@JSON
@click.pass_obj
def commands(reach: Reach, target: Target, as_json: bool) -> None:
    """Show which commands a component has, and their effects, as its Command Effects Log has them."""
    found = reach.device(target, lambda device: device.command_effects())
    data = [
        {
            "opcode": f"{one.opcode:04X}h",
            "name": NAMES.get(one.opcode),
            "effects": [name for name, has in to_plain(one.effects).items() if has],
        }
        for one in found
    ]

    def render(given: list[dict[str, Any]]) -> Any:
        rows = ((one["opcode"], one["name"], one["effects"]) for one in given)
        return tables.table("opcode", "command", "effects", rows=rows)

    emit(as_json, data, render)


@fm.command()
@targeted
@JSON
@click.pass_obj
def background(reach: Reach, target: Target, as_json: bool) -> None:
    """Show the background operation that a component started last: how far it is, or how it ended."""
    found = reach.device(target, lambda device: device.background_operation())
    running = bool(found.status.in_progress)
    data = {
        "opcode": f"{found.opcode:04X}h",
        "name": NAMES.get(found.opcode),
        "in_progress": running,
        "percentage_complete": int(found.status.percentage_complete),
        "return_code": None if running else words.name_of(ReturnCode, found.return_code),
        "vendor_status": found.vendor_status,
    }
    emit(as_json, data, tables.facts)


@fm.command()
@targeted
@click.pass_obj
def abort(reach: Reach, target: Target) -> None:
    """Ask a component to abort its background operation."""
    reach.device(target, lambda device: device.abort_background_operation())


@fm.command()
@click.argument("size", type=Number("bytes", 256, 1 << 20), required=False)
@targeted
@JSON
@click.pass_obj
def limit(reach: Reach, size: int | None, target: Target, as_json: bool) -> None:
    """Show the largest response that a component sends, in bytes; with SIZE, a power of two, limit it first."""
    if size is not None and size & size - 1:
        raise click.UsageError(f"{size} is no power of two; 256, 512 and so on to 1048576 are allowed")

    async def ask(device: library.Device) -> int:
        if size is None:
            return await device.response_message_limit()
        return await device.set_response_message_limit(size)

    emit(as_json, {"response_message_limit": reach.device(target, ask)}, tables.facts)


@fm.command()
@click.option("--set", "set_", is_flag=True, help="Set it to what this machine's clock says.")
@targeted
@JSON
@click.pass_obj
def clock(reach: Reach, set_: bool, target: Target, as_json: bool) -> None:
    """Show the clock that a component stamps its events with; events of one that was never set have no time."""

    async def ask(device: library.Device) -> int:
        if set_:
            await device.set_timestamp(time.time_ns())
        return await device.timestamp()

    found = reach.device(target, ask)
    emit(as_json, {"timestamp": found}, lambda _: moment(found))


# -- any command ---------------------------------------------------------------------------------------------


@fm.command()
@click.argument("opcode", type=Opcode())
@click.argument("data", type=Hex(), default=b"", metavar="[HEX]")
@targeted
@JSON
@click.pass_obj
def raw(reach: Reach, opcode: int, data: bytes, target: Target, as_json: bool) -> None:
    """Send any command with these bytes as its input, and show its output.

    OPCODE is a number as the standard prints it (5100h) or a name (identify-switch-device). Output that is declared is
    decoded. A return code that is no success is exit status 1.
    """
    _send(reach, opcode, data, target, as_json)


@fm.command()
@click.argument("port", type=PORT)
@click.argument("opcode", type=Opcode())
@click.argument("data", type=Hex(), default=b"", metavar="[HEX]")
@click.option(
    "--ld",
    type=LD,
    metavar="N",
    help="To this logical device of the MLD behind the port: a tunnel in a tunnel.",
)
@click.option(
    "--pool", is_flag=True, help="To the LD pool's command interface of the device behind the port."
)
@JSON
@click.pass_obj
def tunnel(
    reach: Reach, port: int, opcode: int, data: bytes, ld: int | None, pool: bool, as_json: bool
) -> None:
    """Send any command to the device behind PORT, as `raw` does to the endpoint."""
    _send(reach, opcode, data, Target(port, ld, pool), as_json)


def _send(reach: Reach, opcode: int, data: bytes, target: Target, as_json: bool) -> None:
    async def ask(device: library.Device) -> tuple[Answer, str]:
        return await device.execute(opcode, data), device.name

    answer, name = reach.device(target, ask)
    decoded = _decoded(opcode, answer)
    found = {
        "opcode": f"{opcode:04X}h",
        "name": NAMES.get(opcode),
        "return_code": answer.code,
        "return_code_name": words.name_of(ReturnCode, answer.code),
        "vendor_status": answer.vendor_status,
        "output": answer.payload.hex(),
        "decoded": decoded,
    }
    succeeded = answer.code in (ReturnCode.SUCCESS, ReturnCode.BACKGROUND_STARTED)
    if as_json:
        emit(True, found, str)
    elif not succeeded:
        raise CommandRefused(naming(opcode), None, name, answer.code, answer.vendor_status)
    else:
        if answer.code:
            click.echo(return_code(answer.code))
        for line in dump(answer.payload):
            click.echo(line)
        if decoded is not None:
            emit(False, decoded, lambda given: tables.facts(_flat(given)))
    if not succeeded:
        click.get_current_context().exit(1)


def _decoded(opcode: int, answer: Answer) -> dict[str, Any] | None:
    """The output of a command that is declared, where it fits its declaration."""
    command = COMMANDS.get(opcode)
    if command is None or command.response is None or answer.code != ReturnCode.SUCCESS:
        return None
    try:
        found: dict[str, Any] = to_plain(command.response.unpack_from(answer.payload))
    except LayoutError:
        return None
    return found


def _flat(given: Any, lead: str = "") -> dict[str, Any]:
    """Nested values as one level of dotted names."""
    if isinstance(given, dict):
        return {
            name: one for key, value in given.items() for name, one in _flat(value, f"{lead}.{key}").items()
        }
    if isinstance(given, list) and any(isinstance(one, dict) for one in given):
        return {
            name: one for at, value in enumerate(given) for name, one in _flat(value, f"{lead}[{at}]").items()
        }
    return {lead.removeprefix("."): given}
