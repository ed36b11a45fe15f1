"""Commands that act as a host in this process: `list`, `tree`, `region`, `explain`, `shell`."""

from __future__ import annotations

import code
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import click

from softcxl.fabric.build import Fabric
from softcxl.fabric.sizes import parse_number, parse_size
from softcxl.host.list import Include
from softcxl.host.system import System
from softcxl.host.tree import tree as tree_of

_HOST = click.option(
    "--host", "host_name", metavar="NAME", help="Which host of the file; without it the first."
)
_TOPOLOGY = click.argument("topology", type=click.Path())


@contextmanager
def _booted(topology: str, host_name: str | None) -> Iterator[tuple[Fabric, System, str]]:
    """The fabric of a file with an operating system booted on one of its hosts. Its problems are said on stderr."""
    with Fabric.load(topology) as fabric:
        names = list(fabric.hosts)
        if not names:
            raise click.UsageError(f"{topology}: no host is in it")
        name = host_name or names[0]
        if name not in fabric.hosts:
            raise click.UsageError(f"{name} is no host of {topology}; there are {', '.join(names)}")
        system = fabric.hosts[name].boot()
        for problem in system.problems:
            click.echo(f"softcxl: {name}: {problem}", err=True)
        yield fabric, system, name


def _print(answer: Any) -> None:
    # As json-c prints it for cxl: no space after a colon.
    click.echo(json.dumps(answer, indent=2, separators=(",", ":"), ensure_ascii=False))


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


def _number(ctx: click.Context, param: click.Parameter, given: str) -> int:
    try:
        return parse_number(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _uuid(ctx: click.Context, param: click.Parameter, given: str | None) -> UUID | None:
    try:
        return None if given is None else UUID(given)
    except ValueError:
        raise click.BadParameter(f"{given} is no UUID") from None


@click.command("list")
@_TOPOLOGY
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
@click.option("-I", "--partition", is_flag=True, help="Partitions of memory devices.")
@click.option("-F", "--firmware", is_flag=True, help="Firmware of memory devices.")
@click.option("-L", "--media-errors", is_flag=True, help="Poison of memory devices and regions.")
@click.option("-m", "--memdev", multiple=True, metavar="NAMES", help="Only these memory devices.")
@click.option("-d", "--decoder", multiple=True, metavar="NAMES", help="Only these decoders.")
@click.option("-r", "--region", multiple=True, metavar="NAMES", help="Only these regions.")
@click.option("-v", "--verbose", count=True, help="More; up to -vvv.")
@_HOST
def list_(
    topology: str,
    host_name: str | None,
    verbose: int,
    memdev: tuple[str, ...],
    decoder: tuple[str, ...],
    region: tuple[str, ...],
    **flags: bool,
) -> None:
    """List what a host of TOPOLOGY sees, as `cxl list` would on it.

    The JSON has the names, the nesting and the values of the field's own tool.
    """
    include = Include(
        **flags,
        only_memdevs=_names(memdev),
        only_decoders=_names(decoder),
        only_regions=_names(region),
    )
    with _booted(topology, host_name) as (_, system, _name):
        _print(system.listing(include, verbose))


@click.command()
@_TOPOLOGY
@_HOST
def tree(topology: str, host_name: str | None) -> None:
    """Show what a host of TOPOLOGY sees as a tree: windows, regions, ports, memory devices."""
    with _booted(topology, host_name) as (_, system, name):
        click.echo(str(tree_of(system, f"host {name}")))


@click.command()
@_TOPOLOGY
@click.argument("address", callback=_number)
@click.option("-m", "--memdev", metavar="NAME", help="ADDRESS is a DPA of this memory device.")
@click.option("-r", "--region", metavar="NAME", help="ADDRESS is an offset in this region.")
@_HOST
def explain(
    topology: str, address: int, memdev: str | None, region: str | None, host_name: str | None
) -> None:
    """Say where ADDRESS, a host physical address, goes: each window, port, switch and decoder with its arithmetic."""
    with _booted(topology, host_name) as (_, system, _name):
        if memdev is not None:
            hpa = system.translate(memdev, address)
            if hpa is None:
                raise click.ClickException(f"DPA {address:#x} of {memdev} is mapped nowhere")
            address = hpa
        if region is not None:
            if region not in system.regions:
                raise click.UsageError(
                    f"{region} is no region; there are {', '.join(system.regions) or 'none'}"
                )
            address += system.regions[region].hpa
        click.echo(str(system.explain(address)))


@click.group()
def region() -> None:
    """Make and take apart regions.

    A host in this process lasts as long as the command. What lasts longer are persistent regions of a file with
    `state`: their labels are on the devices, and they come back.
    """


@region.command("create")
@_TOPOLOGY
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
@_HOST
def create(
    topology: str,
    memdevs: tuple[str, ...],
    decoder: str | None,
    size: int | None,
    ways: int | None,
    granularity: int | None,
    kind: str | None,
    uuid: UUID | None,
    host_name: str | None,
) -> None:
    """Make a region of MEMDEVS, in the order of their positions, and print it as `cxl create-region` does."""
    with _booted(topology, host_name) as (_, system, _name):
        made = system.create_region(
            _ordered(memdevs),
            decoder=decoder,
            size=size,
            ways=ways,
            granularity=granularity,
            type=kind,
            uuid=uuid,
        )
        _print(system.listing(Include(regions=True, targets=True, only_regions=frozenset({made.name})))[0])


def _ordered(given: tuple[str, ...]) -> list[str] | None:
    """The names in their order, each argument one or several with commas; None where there is none."""
    return [word for one in given for word in re.split(r"[ ,]+", one) if word] or None


@region.command("destroy")
@_TOPOLOGY
@click.argument("regions", nargs=-1, required=True)
@_HOST
def destroy(topology: str, regions: tuple[str, ...], host_name: str | None) -> None:
    """Take REGIONS apart, or `all`, the last made first; the labels of persistent ones go, too."""
    with _booted(topology, host_name) as (_, system, _name):
        names = list(system.regions) if "all" in regions else list(regions)
        for name in sorted(names, key=lambda one: system.regions[one].hpa if one in system.regions else 0)[
            ::-1
        ]:
            system.destroy_region(name)
            click.echo(f"destroyed {name}")


@click.command()
@_TOPOLOGY
@_HOST
def shell(topology: str, host_name: str | None) -> None:
    """Open a Python prompt with the fabric of TOPOLOGY live: `fabric`, `system`, and its devices by name."""
    with _booted(topology, host_name) as (fabric, system, name):
        names: dict[str, Any] = {"fabric": fabric, "system": system, "host": fabric.hosts[name]}
        names |= {key.replace("-", "_"): value for key, value in fabric.devices.items()}
        banner = (
            f"host {name} of {topology}: {', '.join(system.memdevs) or 'no memory devices'}\n"
            f"names: {', '.join(names)}\n"
            'try:   region = system.create_region(); region.write(0, b"hello"); region.read(0, 5)'
        )
        code.interact(banner=banner, local=names, exitmsg="")
