"""A guest that is a host of a fabric in another process: it comes through doors that are open there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from softcxl.fabric import keys
from softcxl.fabric.live_host import FirmwareProgram
from softcxl.lab.boot import Backing, own_overlays, planned
from softcxl.lab.errors import PlanError
from softcxl.lab.guest import Guest
from softcxl.lab.parts import Parts
from softcxl.lab.plan import Piece
from softcxl.lab.progress import silent
from softcxl.lab.slots import Orders, Slots


@contextmanager
def visit(
    topology: keys.Topology,
    doors: Mapping[str, Any],
    parts: Parts,
    orders: Orders,
    *,
    overlays: Sequence[Path] = (),
    mctp_serial: bool = False,
    python: bool = False,
    **options: Any,
) -> Iterator[Guest]:
    """Boot the host that `doors` tells of (`softcxl.fabric.hosts.Call.doors`), of a topology that is live elsewhere on
    this machine; yields the running guest. `orders` are carried out at the ports of its virtual switches, if it has
    any. With `mctp_serial` its second serial port is a line to that fabric's MCTP endpoints, and with `python` it has
    Python. `options` are those of `Guest`. Raises `LabError`."""
    key = topology.hosts[doors["host"]]
    with ExitStack() as stack:
        windows = [Backing(one["window"], one["base"], _files(one, stack)) for one in doors["windows"]]
        regions = [
            FirmwareProgram(region, one["base"], one["size"], one["granularity"], ())
            for region, one in zip(key.regions, doors["regions"], strict=True)
        ]
        sockets = {name: Path(door["socket"]) for name, door in doors["devices"].items()}
        plan = planned(topology, doors["host"], windows, regions, sockets, doors["virtual"])
        tools = (*own_overlays(parts, python, options.get("progress", silent)), *overlays)
        slots = stack.enter_context(Slots(orders))
        if mctp_serial and doors["serial"] is None:
            raise PlanError(f"{doors['host']}: its fabric has no MCTP endpoint for a serial line to reach.")
        serial = Path(doors["serial"]) if mctp_serial else None
        guest = stack.enter_context(Guest(plan, parts, overlays=tools, serial=serial, **options))
        if doors["virtual"]:
            slots.start(guest)
        yield guest


def _files(window: Mapping[str, Any], stack: ExitStack) -> int | tuple[Piece, ...]:
    """What is behind a window, opened."""
    if "pieces" not in window:
        return stack.enter_context(_open(window["file"]))
    return tuple(
        Piece(one["offset"], one["size"], stack.enter_context(_open(one["file"])), one["start"])
        for one in window["pieces"]
    )


@contextmanager
def _open(file: str) -> Iterator[int]:
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise PlanError(f"The window's memory {file} cannot be opened: {error.strerror}.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
