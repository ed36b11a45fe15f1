"""Verbs about a device of several logical devices or heads: `ld`, `qos`, `heads`."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Group

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.parameters import BYTE, LD, Number, Ranges
from softcxl.cli.fm.reach import Reach, Target, targeted
from softcxl.cli.options import JSON
from softcxl.cli.tables import emit
from softcxl.wire import to_plain

_PERCENT = Number("percent", 1, 100)


@fm.group()
def ld() -> None:
    """Logical devices of an MLD: the memory that each has."""


@ld.command("list")
@targeted
@JSON
@click.pass_obj
def ld_list(reach: Reach, target: Target, as_json: bool) -> None:
    """Show the logical devices and their memory."""

    async def ask(device: library.Device) -> dict[str, Any]:
        info, found = await device.ld_info(), await device.ld_allocations()
        return {
            "memory_size": info.memory_size,
            "supported_lds": info.ld_count,
            "granularity": found.granularity,
            "qos_telemetry": [name for name, has in to_plain(info.qos_telemetry).items() if has],
            "lds": [
                {"ld": number, "range1": first, "range2": second}
                for number, (first, second) in enumerate(found.ranges)
            ],
        }

    def render(found: dict[str, Any]) -> Any:
        free = found["memory_size"] - sum(one["range1"] + one["range2"] for one in found["lds"])
        rows = ((one["ld"], tables.size(one["range1"]), tables.size(one["range2"])) for one in found["lds"])
        title = (
            f"{tables.size(found['memory_size'])}, {tables.size(max(0, free))} of it free, in multiples of "
            f"{tables.size(found['granularity'])}; up to {found['supported_lds']} logical devices"
        )
        return tables.titled(title, tables.table("LD", "range 1", "range 2", rows=rows))

    emit(as_json, reach.device(target, ask), render)


@ld.command()
@click.argument("first", type=LD)
@click.argument("sizes", nargs=-1, required=True, type=Ranges(), metavar="RANGE1[,RANGE2]...")
@targeted
@JSON
@click.pass_obj
def allocate(
    reach: Reach, first: int, sizes: tuple[tuple[int, int], ...], target: Target, as_json: bool
) -> None:
    """Give memory to logical devices: to LD FIRST, and for each further size to the next one.

    The sizes are of range 1 and range 2, multiples of the granularity that `ld list` shows: `1GiB`, `512MiB,256MiB`,
    `0`.
    """

    async def ask(device: library.Device) -> list[tuple[int, int]]:
        unit = (await device.ld_allocations()).granularity
        for size in (one for pair in sizes for one in pair if one % unit):
            allowed = tables.size(unit)
            raise click.BadParameter(
                f"{tables.size(size)} is no multiple of the device's granularity, {allowed}"
            )
        return await device.set_ld_allocations(sizes, first)

    found = reach.device(target, ask)
    data = [{"ld": number, "range1": one, "range2": two} for number, (one, two) in enumerate(found, first)]
    rows = [(one["ld"], tables.size(one["range1"]), tables.size(one["range2"])) for one in data]
    emit(as_json, data, lambda _: tables.table("LD", "range 1", "range 2", rows=rows))


@fm.group()
def qos() -> None:
    """Quality of service of a device: telemetry, and the bandwidth of logical devices."""


@qos.command("show")
@targeted
@JSON
@click.pass_obj
def qos_show(reach: Reach, target: Target, as_json: bool) -> None:
    """Show thresholds, backpressure, and what bandwidth each logical device is allocated and limited to."""

    async def ask(device: library.Device) -> dict[str, Any]:
        control = to_plain(await device.qos_control())
        status = await device.qos_status()
        count = len((await device.ld_allocations()).ranges)
        allocated = await device.allocated_bandwidth(count) if count else []
        limits = await device.bandwidth_limit(count) if count else []
        return {
            "control": control,
            "backpressure_average_percentage": status,
            "lds": [
                {"ld": number, "allocated": share, "limit": limit}
                for number, (share, limit) in enumerate(zip(allocated, limits, strict=False))
            ],
        }

    def render(found: dict[str, Any]) -> Any:
        control = dict(found["control"])
        control["telemetry"] = [name for name, has in control.pop("control").items() if has]
        rows = ((one["ld"], _share(one["allocated"]), _share(one["limit"])) for one in found["lds"])
        average = {"backpressure_average_percentage": found["backpressure_average_percentage"]}
        return Group(tables.facts(control | average), tables.table("LD", "allocated", "limit", rows=rows))

    emit(as_json, reach.device(target, ask), render)


@qos.command("set")
@click.option("--moderate", type=_PERCENT, metavar="PERCENT", help="Threshold of moderate congestion.")
@click.option("--severe", type=_PERCENT, metavar="PERCENT", help="Threshold of severe congestion.")
@click.option(
    "--interval", type=Number("ns", 0, 15), metavar="NS", help="Backpressure sample interval; 0: none."
)
@click.option("--basis", type=Number("number", 0, 0xFFFF), metavar="N", help="ReqCmpBasis; 0: no limits.")
@click.option("--collection", type=BYTE, metavar="NS", help="Completion collection interval.")
@click.option(
    "--egress/--no-egress", "egress", default=None, help="Whether congestion of the egress port counts."
)
@click.option(
    "--throughput/--no-throughput",
    "throughput",
    default=None,
    help="Whether temporary throughput reduction counts.",
)
@targeted
@JSON
@click.pass_obj
def qos_set(
    reach: Reach,
    moderate: int | None,
    severe: int | None,
    interval: int | None,
    basis: int | None,
    collection: int | None,
    egress: bool | None,
    throughput: bool | None,
    target: Target,
    as_json: bool,
) -> None:
    """Set QoS telemetry; what is not said stays. Shows what is in effect then."""
    changes = {
        "egress_moderate_percentage": moderate,
        "egress_severe_percentage": severe,
        "backpressure_sample_interval": interval,
        "request_completion_basis": basis,
        "completion_collection_interval": collection,
    }

    async def ask(device: library.Device) -> dict[str, Any]:
        control = await device.qos_control()
        for name, value in changes.items():
            if value is not None:
                setattr(control, name, value)
        if egress is not None:
            control.control.egress_port_congestion = egress
        if throughput is not None:
            control.control.temporary_throughput_reduction = throughput
        found: dict[str, Any] = to_plain(await device.set_qos_control(control))
        return found

    def render(found: dict[str, Any]) -> Any:
        control = dict(found)
        control["telemetry"] = [name for name, has in control.pop("control").items() if has]
        return tables.facts(control)

    emit(as_json, reach.device(target, ask), render)


@qos.command("allocate")
@click.argument("first", type=LD)
@click.argument("fractions", nargs=-1, required=True, type=BYTE, metavar="FRACTION...")
@targeted
@JSON
@click.pass_obj
def qos_allocate(reach: Reach, first: int, fractions: tuple[int, ...], target: Target, as_json: bool) -> None:
    """Allocate bandwidth, in 1/256 of the device's, to LD FIRST, and for each further fraction to the next one."""
    found = reach.device(target, lambda device: device.set_allocated_bandwidth(fractions, first))
    _show_shares(as_json, first, found, "allocated")


@qos.command("limit")
@click.argument("first", type=LD)
@click.argument("fractions", nargs=-1, required=True, type=BYTE, metavar="FRACTION...")
@targeted
@JSON
@click.pass_obj
def qos_limit(reach: Reach, first: int, fractions: tuple[int, ...], target: Target, as_json: bool) -> None:
    """Limit bandwidth, in 1/256 of the device's, of LD FIRST, and for each further fraction of the next one."""
    found = reach.device(target, lambda device: device.set_bandwidth_limit(fractions, first))
    _show_shares(as_json, first, found, "limit")


def _show_shares(as_json: bool, first: int, shares: list[int], what: str) -> None:
    data = [{"ld": number, what: share} for number, share in enumerate(shares, first)]
    rows = [(number, _share(share)) for number, share in enumerate(shares, first)]
    emit(as_json, data, lambda _: tables.table("LD", what, rows=rows))


def _share(fraction: int) -> str:
    return f"{fraction}/256"


@fm.command()
@targeted
@JSON
@click.pass_obj
def heads(reach: Reach, target: Target, as_json: bool) -> None:
    """Show the heads of a multi-headed device: their links, and which logical devices each has."""

    async def ask(device: library.Device) -> dict[str, Any]:
        found = await device.heads()
        links = await device.head_info(found.head_count)
        return {
            "lds": [{"ld": number, "head": one} for number, one in enumerate(found.ld_heads)],
            "heads": [{"head": number, **words.head(one)} for number, one in enumerate(links)],
        }

    def render(found: dict[str, Any]) -> Any:
        rows = (
            (
                one["head"],
                one["port"],
                tables.lanes(one["link"]),
                [entry["ld"] for entry in found["lds"] if entry["head"] == one["port"]],
            )
            for one in found["heads"]
        )
        return tables.table("head", "port", "link", "LDs", rows=rows)

    emit(as_json, reach.device(target, ask), render)
