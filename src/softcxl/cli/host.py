"""Commands that act as a host: `list`, `tree`, `region`, `explain`."""

from __future__ import annotations

import re
from typing import Literal
from uuid import UUID

import click

from softcxl.cli.booted import perform
from softcxl.cli.options import HOST, JSON, TOPOLOGY
from softcxl.cli.verbs import CreateRegion, DestroyRegion, Explain, List, Tree
from softcxl.host.list import Include
from softcxl.wire.sizes import parse_number, parse_size


def _names(given: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for one in given for word in re.split(r"[ ,]+", one) if word)


def _size(ctx: click.Context, param: click.Parameter, given: str | None) -> int | None:
    if given is None:
        return None
    try:
        # cxl takes 256M and 1G, always in powers of 1024.
        return parse_size(re.sub(r"([0-9])([KMGT])$", r"\1\2iB", given))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _address(ctx: click.Context, param: click.Parameter, given: str) -> int:
    try:
        address = parse_number(given)
    except ValueError as error:
        raise click.BadParameter(f"{error}, from 0 to 0xffffffffffffffff") from None
    if address >> 64:
        raise click.BadParameter(f"{given} is not an address; they end at 0xffffffffffffffff")
    return address


def _uuid(ctx: click.Context, param: click.Parameter, given: str | None) -> UUID | None:
    try:
        return None if given is None else UUID(given)
    except ValueError:
        raise click.BadParameter(f"{given} is no UUID") from None


@click.command("list")
@TOPOLOGY
@click.option("-B", "--buses", is_flag=True, help="The CXL root.")
@click.option("-P", "--ports", is_flag=True, help="Host bridges and switches.")
@click.option("-E", "--endpoints", is_flag=True, help="Endpoints.")
@click.option("-M", "--memdevs", is_flag=True, help="Memory devices.")
@click.option("-D", "--decoders", is_flag=True, help="Decoders.")
@click.option("-R", "--regions", is_flag=True, help="Regions.")
@click.option("-T", "--targets", is_flag=True, help="Targets of decoders, ports and regions.")
@click.option("-X", "--dax", is_flag=True, help="Device-dax regions of volatile regions.")
@click.option("-i", "--idle", is_flag=True, help="What is disabled, too.")
@click.option("-H", "--health", is_flag=True, help="Health of memory devices.")
@click.option("-A", "--alert-config", is_flag=True, help="Alert thresholds of memory devices.")
@click.option("-I", "--partition", is_flag=True, help="Partitions of memory devices.")
@click.option("-F", "--firmware", is_flag=True, help="Firmware of memory devices.")
@click.option("-L", "--media-errors", is_flag=True, help="Poison of memory devices and regions.")
@click.option("-m", "--memdev", multiple=True, metavar="NAMES", help="Only these memory devices.")
@click.option("-d", "--decoder", multiple=True, metavar="NAMES", help="Only these decoders.")
@click.option("-r", "--region", multiple=True, metavar="NAMES", help="Only these regions.")
@click.option("-v", "--verbose", count=True, help="More; up to -vvv.")
@JSON
@HOST
def list_(
    topology: str,
    host_name: str | None,
    as_json: bool,
    verbose: int,
    memdev: tuple[str, ...],
    decoder: tuple[str, ...],
    region: tuple[str, ...],
    **flags: bool,
) -> None:
    """List what a host of TOPOLOGY sees, as `cxl list` would on it.

    The JSON has the names, the nesting and the values of the field's own tool; --json changes nothing.
    """
    include = Include(
        **flags,
        only_memdevs=_names(memdev),
        only_decoders=_names(decoder),
        only_regions=_names(region),
    )
    perform(topology, host_name, List(include, verbose))


@click.command()
@TOPOLOGY
@JSON
@HOST
def tree(topology: str, host_name: str | None, as_json: bool) -> None:
    """Show what a host of TOPOLOGY sees as a tree: windows, regions, ports, memory devices.

    With --json it is the nested list that `softcxl list -vvv` prints.
    """
    perform(topology, host_name, Tree(as_json))


# A negative ADDRESS is an address that is wrong, and not an option that nobody knows.
@click.command(context_settings={"ignore_unknown_options": True})
@TOPOLOGY
@click.argument("address", callback=_address)
@click.option("-m", "--memdev", metavar="NAME", help="ADDRESS is a DPA of this memory device.")
@click.option("-r", "--region", metavar="NAME", help="ADDRESS is an offset in this region.")
@JSON
@HOST
def explain(
    topology: str, address: int, memdev: str | None, region: str | None, host_name: str | None, as_json: bool
) -> None:
    """Say where ADDRESS, a host physical address, goes: each window, port, switch and decoder with its arithmetic."""
    if memdev is not None and region is not None:
        raise click.UsageError("ADDRESS is one thing: give -m or -r, not both")
    perform(topology, host_name, Explain(address, memdev, region, as_json))


@click.group()
def region() -> None:
    """Make and take apart regions.

    A host in this process lasts as long as the command. What lasts longer are persistent regions of a file with
    `state`: their labels are on the devices, and they come back. A host of a server (`softcxl serve`) lasts as long as
    the server, and so do all of its regions.
    """


@region.command("create")
@TOPOLOGY
@click.argument("memdevs", nargs=-1)
@click.option("-d", "--decoder", metavar="NAME", help="The root decoder, that is the window, to use.")
@click.option(
    "-s", "--size", callback=_size, metavar="SIZE", help="Size of the region; without it all there is."
)
@click.option("-w", "--ways", type=int, help="How many memory devices take part.")
@click.option("-g", "--granularity", type=int, help="Bytes to one device before the next.")
@click.option(
    "-t", "--type", "kind", type=click.Choice(["ram", "pmem"]), help="Volatile or persistent capacity."
)
@click.option("-U", "--uuid", callback=_uuid, metavar="UUID", help="UUID of a persistent region.")
@JSON
@HOST
def create(
    topology: str,
    memdevs: tuple[str, ...],
    decoder: str | None,
    size: int | None,
    ways: int | None,
    granularity: int | None,
    kind: Literal["ram", "pmem"] | None,
    uuid: UUID | None,
    host_name: str | None,
    as_json: bool,
) -> None:
    """Make a region of MEMDEVS, in the order of their positions, and print it as `cxl create-region` does.

    What it prints is JSON, with and without --json.
    """
    perform(
        topology,
        host_name,
        CreateRegion(_ordered(memdevs), decoder, size, ways, granularity, kind, uuid),
    )


def _ordered(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names in their order, each argument one or several with commas; None where there is none."""
    return tuple(word for one in given for word in re.split(r"[ ,]+", one) if word) or None


@region.command("destroy")
@TOPOLOGY
@click.argument("regions", nargs=-1, required=True)
@JSON
@HOST
def destroy(topology: str, regions: tuple[str, ...], host_name: str | None, as_json: bool) -> None:
    """Take REGIONS apart, or `all`, the last made first; the labels of persistent ones go, too."""
    perform(topology, host_name, DestroyRegion(regions, as_json))
