"""Verbs that read and write behind a port: `config`, `memory`."""

from __future__ import annotations

import click

from softcxl.cli.fm.group import fm
from softcxl.cli.fm.parameters import ADDRESS, PORT, LogicalDevice, Number
from softcxl.cli.fm.reach import Reach
from softcxl.cli.options import JSON
from softcxl.cli.parameters import Hex, Size
from softcxl.cli.tables import dump, emit

_OFFSET = Number("offset", 0, 0xFFF)
_OF_LD = click.option(
    "--ld",
    type=LogicalDevice(),
    metavar="N|fm",
    help="Of this logical device behind the port, or of the FM-owned one (fm), and not of its PPB.",
)


@fm.group()
def config() -> None:
    """Configuration space of a port's PPB, or of a logical device behind it."""


@config.command("read")
@click.argument("port", type=PORT)
@click.argument("offset", type=_OFFSET)
@click.argument("size", type=Number("size", 1, 0x1000), default=4)
@_OF_LD
@JSON
@click.pass_obj
def config_read(reach: Reach, port: int, offset: int, size: int, ld: int | None, as_json: bool) -> None:
    """Read SIZE bytes from OFFSET, 4 if not said."""
    _in_space(offset, size)
    data = reach.switch(lambda switch: switch.read_configuration(port, offset, size, ld))
    _show(as_json, offset, data)


@config.command("write")
@click.argument("port", type=PORT)
@click.argument("offset", type=_OFFSET)
@click.argument("data", type=Hex(0x1000), metavar="HEX")
@_OF_LD
@click.pass_obj
def config_write(reach: Reach, port: int, offset: int, data: bytes, ld: int | None) -> None:
    """Write bytes at OFFSET, the lowest address first."""
    _in_space(offset, len(data))
    reach.switch(lambda switch: switch.write_configuration(port, offset, data, ld))


def _in_space(offset: int, size: int) -> None:
    if not size or offset + size > 0x1000:
        raise click.UsageError(f"{size} bytes from {offset:#x}; configuration space has 4096 bytes")


@fm.group()
def memory() -> None:
    """Memory space of a logical device behind a port, as its BARs have it."""


@memory.command("read")
@click.argument("port", type=PORT)
@click.argument("ld", type=LogicalDevice(), metavar="LD|fm")
@click.argument("address", type=ADDRESS)
@click.argument("size", type=Size(), default=64)
@JSON
@click.pass_obj
def memory_read(reach: Reach, port: int, ld: int, address: int, size: int, as_json: bool) -> None:
    """Read SIZE bytes from ADDRESS, 64 if not said."""
    _show(as_json, address, reach.switch(lambda switch: switch.read_memory(port, ld, address, size)))


@memory.command("write")
@click.argument("port", type=PORT)
@click.argument("ld", type=LogicalDevice(), metavar="LD|fm")
@click.argument("address", type=ADDRESS)
@click.argument("data", type=Hex(), metavar="HEX")
@click.pass_obj
def memory_write(reach: Reach, port: int, ld: int, address: int, data: bytes) -> None:
    """Write bytes at ADDRESS, the lowest first."""
    reach.switch(lambda switch: switch.write_memory(port, ld, address, data))


def _show(as_json: bool, start: int, data: bytes) -> None:
    emit(as_json, {"offset": start, "data": data.hex()}, lambda _: "\n".join(dump(data, start)))
