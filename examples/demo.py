"""What `make demo` shows: a whole CXL fabric in this process, used, broken and looked at. No guest, no root.

Run it with nothing: it plays on a copy of showcase.yaml. Lines after >>> are Python, shown and then really executed:
the same can be typed at `softcxl shell examples/showcase.yaml`. It exits with 0 when everything was as it should be.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

from softcxl import Fabric, Type3
from softcxl.cli.show import console as make_console
from softcxl.cli.show import print_tree
from softcxl.fabric.build import LiveHost
from softcxl.fabric.errors import SoftCXLError
from softcxl.fabric.tree import tree as topology_tree
from softcxl.host.iomem import iomem
from softcxl.host.list import Include
from softcxl.host.region import Region
from softcxl.host.system import System
from softcxl.host.tree import tree as host_tree

MIB = 1 << 20
MOVED = 64 * MIB
WAYS, GRANULARITY = 8, 1024
SHOWCASE = Path(__file__).with_name("showcase.yaml")

console = make_console()


class HostLog(logging.Handler):
    """What the host would put into its log, shown where it happens."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(f"[yellow]host's log:[/] {record.getMessage()}")


class Session:
    """Lines of Python as one would type them, each shown, executed and answered; and the verdicts on them."""

    def __init__(self, **names: Any) -> None:
        self.names = names
        self.checks = self.wrong = 0

    def do(self, line: str) -> None:
        """Execute a statement."""
        self._show(line)
        exec(line, self.names)

    def ask(self, line: str) -> Any:
        """Evaluate an expression and print what it is."""
        self._show(line)
        answer = eval(line, self.names)
        if answer is not None:
            console.print(str(answer), markup=False)
        return answer

    def fails(self, line: str) -> str:
        """Execute a statement that must raise, and print the reason; returns the exception's name."""
        self._show(line)
        try:
            exec(line, self.names)
        except Exception as error:  # noqa: BLE001  whatever it is, is what is shown
            console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
            return type(error).__name__
        self.check(False, "this should have been refused")
        return ""

    def check(self, good: bool, what: str) -> None:
        """A verdict."""
        self.checks += 1
        self.wrong += not good
        word = "[bold green]ok[/]    " if good else "[bold red]WRONG[/] "
        console.print(f"{word} {what}")

    @staticmethod
    def _show(line: str) -> None:
        console.print(f"[dim]>>>[/] [bold]{line.replace('[', chr(92) + '[')}[/]")


def main() -> int:
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="softcxl-demo-") as folder:
            path = Path(shutil.copy(SHOWCASE, folder))
            with Fabric.load(path) as fabric:
                session = play(fabric)
            heading(
                "A restart", "the process's memory is gone; the persistent devices' files in `state` are not"
            )
            restart(session, path)
    except SoftCXLError as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    took = time.perf_counter() - began
    verdict = f"{session.checks} checks, {'all ok' if not session.wrong else f'{session.wrong} WRONG'}"
    heading(f"{verdict}, in {took:.1f} s", "without a guest, root, or hardware")
    console.print("  softcxl shell examples/showcase.yaml    the same by hand (softcxl is in .venv/bin)")
    console.print("  make demo-linux                         an unmodified Linux in QEMU drives such devices")
    return 1 if session.wrong else 0


def play(fabric: Fabric) -> Session:
    heading(
        "A fabric",
        f"as {SHOWCASE.name} describes it; its devices, switches and bridges now live in this process",
    )
    print_tree(topology_tree(fabric.topology, SHOWCASE.name))

    host = fabric.hosts["alpha"]
    session = Session(fabric=fabric, host=host, iomem=iomem, Include=Include, json=json, **fabric.devices)
    heading(
        "A host", "firmware has written its tables; an operating system enumerates, and binds its drivers"
    )
    began = time.perf_counter()
    session.do("system = host.boot()")
    took = time.perf_counter() - began
    system: System = session.names["system"]
    functions, ports = sum(1 for _ in system.nodes()), len(system.ports)
    console.print(
        f"{functions} PCI functions, {ports} CXL ports, {len(system.memdevs)} memory devices, {took * 1000:.0f} ms"
    )
    session.check(not system.problems, "every driver is bound")

    heading("Regions", "by the rules of Linux, decoder by decoder; what cannot be is refused with its reason")
    session.fails('system.create_region(["mem0", "mem1", "mem4", "mem5"], type="ram")')
    session.do(f'region = system.create_region(type="ram", ways={WAYS}, granularity={GRANULARITY})')
    session.do('keep = system.create_region(type="pmem")')
    console.print(str(host_tree(system, "host alpha")), markup=False)

    region: Region = session.names["region"]
    move(session, fabric, host, region)
    heading("One address", "its way, with the arithmetic of every decoder")
    session.ask("system.explain(region.hpa + 0x12345678)")
    look(session)
    breakage(session, fabric, system, region)
    return session


def move(session: Session, fabric: Fabric, host: LiveHost, region: Region) -> None:
    heading("Data", f"{MOVED // MIB} MiB written to the region, then looked for on each device by itself")
    data = np.random.default_rng(2024).integers(0, 256, MOVED, dtype=np.uint8)
    session.names["data"] = data
    session.do("region.write(0, data)")
    by_serial = {device.serial: device for device in fabric.devices.values()}
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2))
    for column in ("position", "device", "way", "bytes", "as dealt by hand"):
        table.add_column(column)
    good = True
    dealt = data.reshape(
        -1, WAYS, GRANULARITY
    )  # turn, position, byte: interleaving, without any of our arithmetic
    for position, memdev in enumerate(
        track(region.memdevs, "reading the devices", console=console, transient=True)
    ):
        assert memdev is not None
        device: Type3 = by_serial[memdev.serial]
        held = np.frombuffer(device.space.read(0, MOVED // WAYS), np.uint8)
        same = bool(np.array_equal(held, dealt[:, position].reshape(-1)))
        good &= same
        hops = host.machine.trace(region.hpa + position * GRANULARITY).hops
        way = " > ".join(hop.component for hop in hops[1:])  # the first is the window
        table.add_row(str(position), device.name, way, f"{held.nbytes // MIB} MiB", "ok" if same else "WRONG")
    console.print(table)
    session.check(good, f"{MOVED // MIB} MiB are on {WAYS} devices, byte for byte where they belong")
    fabric.devices["mem6"].space.write(0x400, b"written on the device")
    session.ask(f"region.read({11 * GRANULARITY}, 21)  # mem6 is position 3; DPA 0x400 is its second turn")
    session.check(
        region.read(11 * GRANULARITY, 21) == region.load(11 * GRANULARITY, 21) == b"written on the device",
        "what a device writes the host reads: from memory, and by a load through every decoder",
    )
    out = np.empty(MOVED, np.uint8)
    region.read_into(out)
    seconds = [clocked(lambda: np.copyto(out, data)), clocked(lambda: region.read_into(out))]
    copied, read = (MOVED / one / 1e9 for one in seconds)
    console.print(f"read at {read:.1f} GB/s; a plain copy of an array here: {copied:.1f} GB/s")


def look(session: Session) -> None:
    heading(
        "What the host sees",
        "names and values are those of Linux: /proc/iomem, `cxl list`, sysfs, memory blocks",
    )
    session.ask("iomem(system)")
    session.ask('json.dumps(system.listing(Include(only_memdevs={"mem3"})))')
    target = session.ask('system.sysfs["bus/cxl/devices/region0/target6"]  # position 6 is mem3')
    session.check(target == "decoder10.0", "sysfs names the decoder that the tree has")
    session.do("region.online()")
    busy = session.fails("system.destroy_region(region)")
    session.check(busy == "BusyError", "memory in use as system RAM is not taken away")
    session.do("region.offline()")


def breakage(session: Session, fabric: Fabric, system: System, region: Region) -> None:
    heading(
        "Poison", "a line of a device goes bad: the host is told, a read raises, a write of the line heals it"
    )
    session.do("mem3.inject_poison(0x1000)")
    (event,) = session.ask("system.events()")
    session.check(event.region == "region0", "the device has reported it, and the host knows where that is")
    session.do('offset = system.translate("mem3", 0x1000) - region.hpa')
    session.check(session.fails("region.read()") == "PoisonError", "the read raised")
    session.do("region.write(offset, bytes(64))")
    session.check(region.read(session.names["offset"], 64) == bytes(64), "the line reads again")

    heading("A reset", "spare is plugged into the running host and used; a reset takes its decoders")
    session.do("slot = host.machine.bridges[2].ports[2]")
    session.do("slot.insert(spare)")
    session.ask('system.hot_add("0000:ae:02.0")')
    session.do('brief = system.create_region(["mem10"], type="ram")')
    session.do('brief.write(0, b"here today")')
    refused = session.fails('system.reset("mem10", "bus")')
    session.check(
        refused == "ResetError", "a CXL port masks the reset of its secondary bus, as the standard says"
    )
    session.ask('system.reset("mem10", "cxl_bus")')
    session.check(session.fails("brief.read(0, 10)") == "AccessError", "the region is gone with its decoders")
    session.do("system.destroy_region(brief)")

    heading("A device pulled out", "in use, and the host notices afterwards")
    session.do('brief = system.create_region(["mem10"], type="ram")')
    session.do("slot.remove()")
    session.check(session.fails("brief.load(0, 10)") == "LinkDown", "a load finds nobody, and says where")
    session.ask('system.hot_remove("0000:ae:02.0")')
    session.check(session.fails("brief.read(0, 10)") == "AccessError", "the host has disabled the region")
    session.do("system.destroy_region(brief)")
    session.do('keep.write(0, b"still here tomorrow")')


def restart(session: Session, path: Path) -> None:
    with Fabric.load(path) as fabric:
        session.names.update(Fabric=Fabric, fabric=fabric, host=fabric.hosts["alpha"])
        session.do("system = host.boot()  # a new fabric, from the same file")
        session.ask("system.regions")
        kept = session.ask('system.regions["region1"].read(0, 19)')
        session.check(
            kept == b"still here tomorrow", "the persistent region is back by its labels, and its bytes"
        )


def clocked(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def heading(title: str, rest: str) -> None:
    console.print(f"\n[bold cyan]{title}[/]  [dim]{rest}[/]")


if __name__ == "__main__":
    logging.getLogger("softcxl").addHandler(HostLog(logging.WARNING))
    sys.exit(main())
