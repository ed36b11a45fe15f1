"""Verbs about dynamic capacity: `dc`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import click

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.parameters import HOST, REGION, ExtentType, Tag
from softcxl.cli.fm.reach import Reach, Target, targeted
from softcxl.cli.options import JSON
from softcxl.cli.parameters import Size
from softcxl.cli.tables import emit
from softcxl.fm import Extent

_LENGTH = click.option("--length", type=Size(), metavar="SIZE", help="How much.")
_EXTENT = click.option(
    "--extent",
    "extents",
    type=ExtentType(),
    multiple=True,
    metavar="DPA:LENGTH",
    help="This extent, 0x10000000:64MiB; may be given several times, and stands in place of --length.",
)
_TAG = click.option(
    "--tag", type=Tag(), metavar="TAG", help="The tag of the extents; without it they have none."
)


@fm.group()
def dc() -> None:
    """Dynamic capacity: regions and extents, and the tags that they are shared by.

    HOST is the LD ID of a host's interface.
    """


@dc.command()
@targeted
@JSON
@click.pass_obj
def info(reach: Reach, target: Target, as_json: bool) -> None:
    """Show what the device has: hosts, regions, capacity, block sizes, policies."""
    found = words.dc_info(reach.device(target, lambda device: device.dc_info()))

    def render(given: dict[str, Any]) -> Any:
        shown = given | {
            "total_capacity": tables.size(given["total_capacity"]),
            "block_sizes": [
                " ".join(str(tables.size(one)) for one in sizes) for sizes in given["block_sizes"]
            ],
        }
        return tables.facts(shown)

    emit(as_json, found, render)


@dc.command()
@click.argument("host", type=HOST)
@targeted
@JSON
@click.pass_obj
def regions(reach: Reach, host: int, target: Target, as_json: bool) -> None:
    """Show the regions of HOST."""
    found = reach.device(target, lambda device: device.dc_regions(host))
    data = {
        "host": host,
        "regions": [words.dc_region(number, one) for number, one in enumerate(found.regions)],
        "extents_supported": found.extents_supported,
        "extents_available": found.extents_available,
        "tags_supported": found.tags_supported,
        "tags_available": found.tags_available,
    }

    def render(given: dict[str, Any]) -> Any:
        headings = (
            "region",
            "base",
            "length",
            "decode length",
            "block size",
            "attributes",
            "sanitized on release",
        )
        rows = (
            (
                one["region"],
                f"{one['base']:#x}",
                tables.size(one["length"]),
                tables.size(one["decode_length"]),
                tables.size(one["block_size"]),
                one["attributes"],
                one["sanitize_on_release"],
            )
            for one in given["regions"]
        )
        return tables.table(*headings, rows=rows)

    emit(as_json, data, render)


@dc.command()
@click.argument("region", type=REGION)
@click.option(
    "--block-size", type=Size(), required=True, metavar="SIZE", help="Extents begin and end at its multiples."
)
@click.option("--sanitize-on-release", is_flag=True, help="What is released is erased.")
@targeted
@click.pass_obj
def configure(reach: Reach, region: int, block_size: int, sanitize_on_release: bool, target: Target) -> None:
    """Choose a region's block size, and whether what is released is erased. No host may have any of it."""
    reach.device(
        target,
        lambda device: device.set_dc_region(region, block_size, sanitize_on_release=sanitize_on_release),
    )


@dc.command()
@click.argument("host", type=HOST)
@targeted
@JSON
@click.pass_obj
def extents(reach: Reach, host: int, target: Target, as_json: bool) -> None:
    """Show the extents that HOST has."""
    found = reach.device(target, lambda device: device.dc_extents(host))

    def render(given: list[dict[str, Any]]) -> Any:
        rows = (
            (f"{one['dpa']:#x}", tables.size(one["length"]), one["tag"], one["sequence"]) for one in given
        )
        return tables.table("DPA", "length", "tag", "sequence", rows=rows)

    emit(as_json, [words.extent(one) for one in found], render)


def _one_of(length: int | None, given: tuple[Extent, ...]) -> None:
    if (length is None) is (not given):
        raise click.UsageError("give either --length or --extent")


@dc.command()
@click.argument("host", type=HOST)
@_LENGTH
@_EXTENT
@_TAG
@click.option("--region", type=REGION, metavar="N", help="Of this region, with --length; without it 0.")
@click.option("--contiguous", is_flag=True, help="In one extent, with --length.")
@targeted
@click.pass_obj
def add(
    reach: Reach,
    host: int,
    length: int | None,
    extents: tuple[Extent, ...],
    tag: UUID | None,
    region: int | None,
    contiguous: bool,
    target: Target,
) -> None:
    """Offer HOST capacity: so much of a region, or certain extents.

    It is done when the host has been told. What the host takes of it, `events` says (dynamic_capacity), and `extents`.
    """
    _one_of(length, extents)
    if extents and (region is not None or contiguous):
        raise click.UsageError("--region and --contiguous go with --length; an extent says where it is")

    async def ask(device: library.Device) -> None:
        if length is not None:
            await device.dc_add(host, length, region=region or 0, tag=tag, contiguous=contiguous)
        else:
            await device.dc_add_extents(host, [replace(one, tag=tag) for one in extents])

    reach.device(target, ask)


@dc.command()
@click.argument("host", type=HOST)
@click.argument("tag", type=Tag())
@click.option("--region", type=REGION, default=0, metavar="N", help="The region that it is in; without it 0.")
@targeted
@click.pass_obj
def share(reach: Reach, host: int, tag: UUID, region: int, target: Target) -> None:
    """Offer HOST what another host has by TAG, in a sharable region: both have it then."""
    reach.device(target, lambda device: device.dc_share(host, tag, region=region))


@dc.command()
@click.argument("host", type=HOST)
@_LENGTH
@_EXTENT
@_TAG
@click.option("--force", is_flag=True, help="Take it, whatever the host does with it.")
@click.option("--sanitize", is_flag=True, help="Erase what is released.")
@targeted
@click.pass_obj
def release(
    reach: Reach,
    host: int,
    length: int | None,
    extents: tuple[Extent, ...],
    tag: UUID | None,
    force: bool,
    sanitize: bool,
    target: Target,
) -> None:
    """Ask HOST for capacity back: so much of what it has by a tag, or certain extents.

    It is done when the host has been told; with --force when it is taken.
    """
    _one_of(length, extents)

    async def ask(device: library.Device) -> None:
        if length is not None:
            await device.dc_release(host, tag, length, forced=force, sanitize=sanitize)
        else:
            given = [replace(one, tag=tag) for one in extents]
            await device.dc_release_extents(host, given, forced=force, sanitize=sanitize)

    reach.device(target, ask)


@dc.group()
def reference() -> None:
    """The fabric manager's own hold on a tag's capacity, and what is in it, while no host has it."""


@reference.command("add")
@click.argument("tag", type=Tag())
@targeted
@click.pass_obj
def reference_add(reach: Reach, tag: UUID, target: Target) -> None:
    """Keep the capacity of TAG."""
    reach.device(target, lambda device: device.dc_add_reference(tag))


@reference.command("remove")
@click.argument("tag", type=Tag())
@targeted
@click.pass_obj
def reference_remove(reach: Reach, tag: UUID, target: Target) -> None:
    """Let go of the capacity of TAG; once no host has it, it is free."""
    reach.device(target, lambda device: device.dc_remove_reference(tag))


@dc.command()
@targeted
@JSON
@click.pass_obj
def tags(reach: Reach, target: Target, as_json: bool) -> None:
    """Show all tags, and who has their capacity."""
    found = reach.device(target, lambda device: device.dc_tags())

    def render(given: list[dict[str, Any]]) -> Any:
        rows = ((one["tag"], one["fm_reference"], one["hosts"], one["pending"]) for one in given)
        return tables.table("tag", "reference", "hosts", "offered to", rows=rows)

    emit(as_json, [words.tag(one) for one in found], render)
