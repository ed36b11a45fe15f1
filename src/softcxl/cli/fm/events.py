"""The verb about event records: `events`."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import click

from softcxl import fm as library
from softcxl.cli import tables
from softcxl.cli.fm import words
from softcxl.cli.fm.group import fm
from softcxl.cli.fm.reach import Reach, Target, targeted
from softcxl.cli.options import JSON
from softcxl.spec.command.events import EventLog

_LOGS = {one.name.lower(): one for one in EventLog}
_HEADER = ("log", "event", "handle", "timestamp", "severity")


@fm.command()
@click.option(
    "--log",
    "names",
    multiple=True,
    type=click.Choice(list(_LOGS)),
    help="Only this log; may be given several times.",
)
@click.option("--keep", is_flag=True, help="Leave the records in the logs.")
@click.option("--follow", is_flag=True, help="Go on, and print records as they come, until interrupted.")
@targeted
@JSON
@click.pass_obj
def events(
    reach: Reach, names: tuple[str, ...], keep: bool, follow: bool, target: Target, as_json: bool
) -> None:
    """Print the event records of a component, a line each, and clear them.

    With --json each line is an object. With --follow the endpoint notifies of new records; one that cannot, and a
    component behind a tunnel, is asked every second.
    """
    if keep and follow:
        raise click.UsageError("--follow clears what it has printed; it does not go with --keep")
    logs = [_LOGS[one] for one in names]

    async def ask(device: library.Device) -> None:
        if follow:
            async with aclosing(device.follow_events(logs or list(EventLog)[:4])) as coming:
                async for log, event in coming:
                    _print(as_json, log, event)
            raise library.NoAnswer(f"{device.name}: the connection has ended")
        for log in logs or EventLog:
            await _one_log(device, log, keep, as_json, named=bool(logs))

    reach.device(target, ask)


async def _one_log(device: library.Device, log: EventLog, keep: bool, as_json: bool, *, named: bool) -> None:
    try:
        batch = await device.events(log)
    except library.CommandRefused:
        if named or log is not EventLog.DYNAMIC_CAPACITY:
            raise
        return  # a component need not have that log
    if batch.lost:
        click.echo(
            f"softcxl: {batch.lost} records of the {log.name.lower()} log were lost: it was full", err=True
        )
    for event in batch.records if keep else await device.take_events(log):
        _print(as_json, log, event)
    if keep and batch.more:
        click.echo(f"softcxl: the {log.name.lower()} log has more; without --keep all are printed", err=True)


def _print(as_json: bool, log: EventLog, event: library.Event) -> None:
    data = words.event(log, event)
    click.echo(json.dumps(data, ensure_ascii=False) if as_json else line(data))


def line(data: dict[str, Any]) -> str:
    """An event record as a line for people: when, which log, where, what."""
    return f"{tables.moment(data['timestamp'])} {data['log']}: {tables.words(_said(data))}"


def _said(data: dict[str, Any]) -> str:
    match data["event"]:
        case "physical_switch_event":
            return f"port {data['port']}: {data['type']}: {data['device']}, {tables.lanes(data['link'])}"
        case "virtual_switch_event":
            ld = "" if data["ld"] is None else f"LD {data['ld']} of "
            to = "" if data["port"] is None else f" ({ld}port {data['port']})"
            return f"vPPB {data['vppb']} of VCS {data['vcs']}: {data['type']}: {data['status']}{to}"
        case "mld_port_event":
            return f"port {data['port']}: {data['type']}: {data['message']}"
        case "dynamic_capacity_event":
            extent = data["extent"]
            tag = "" if extent["tag"] is None else f", tag {extent['tag']}"
            where = f"{extent['dpa']:#x}, {tables.size(extent['length'])}{tag}"
            return f"host {data['host']}: {data['type']}: {where}"
    fields = ((name, one) for name, one in data.items() if name not in _HEADER)
    return f"{data['event']}: {', '.join(f'{name} {json.dumps(one)}' for name, one in fields)}"
