"""What `make demo-pooling` shows: two unmodified Linux guests share a switch and a memory device behind it, and a
fabric manager decides over the standard's own protocol, MCTP over TCP, who has what.

Its topology is examples/pooling.yaml. It exits with 0 when everybody saw what is theirs, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import numpy as np

from softcxl import Fabric, boot, fm
from softcxl.cli.show import console as make_console
from softcxl.cli.show import print_tree
from softcxl.cli.work import shown
from softcxl.fabric.endpoints import endpoints
from softcxl.fabric.errors import SoftCXLError
from softcxl.fabric.tree import tree
from softcxl.lab.guest import Guest
from softcxl.transport.mctp import MctpTcpDoor

MIB = 1 << 20
CHECKED = 16 * MIB
POOL = 0
"""The physical port that the device is in."""

LEFT, RIGHT = 0, 1
"""The virtual switches of hosts a and b."""

SHARED = UUID("5ca1ab1e-0000-4000-8000-000000000001")
"""The tag of the capacity that both have in the end."""

LETTER = "a letter from a"

console = make_console()


def main() -> int:
    path = Path(__file__).with_name("pooling.yaml")
    try:
        with Fabric.load(path) as fabric, ExitStack() as stack:
            heading(
                "The fabric",
                f"as {path.name} describes it; switch and device now live in this Python process",
            )
            print_tree(tree(fabric.topology, path.name))
            with shown() as progress, ThreadPoolExecutor() as threads:

                def start(host: str) -> Guest:
                    words = ["memhp_default_state=online_movable", "iomem=relaxed"]
                    return stack.enter_context(boot(fabric, host, append=words, progress=progress))

                guests = dict(zip("ab", threads.map(start, "ab"), strict=True))
            door = stack.enter_context(MctpTcpDoor(endpoints(fabric), port=0))
            return asyncio.run(Demo(fabric, guests, "tcp:{}:{}".format(*door.address)).show())
    except (SoftCXLError, fm.FmError) as error:
        console.print(f"demo-pooling: {error}", style="red", markup=False)
        return 1


class Demo:
    """The story, and how much of it was not as it should be."""

    def __init__(self, fabric: Fabric, guests: dict[str, Guest], address: str) -> None:
        self.fabric, self.guests, self.address = fabric, guests, address
        self.wrong = 0

    async def show(self) -> int:
        release = self.guests["a"].release
        heading("Two Linux guests", f"{release}, stock, each in a stock QEMU, at the same switch")
        for host in self.guests:
            self.list(host)
        console.print(f"The fabric manager comes in at {self.address}, as any other would.")
        async with fm.connect(self.address) as rack:
            await self.lend(rack)
            await self.pass_on(rack)
            await self.share(rack.port(POOL))
        console.print()
        self.verdict(not self.wrong, "everybody saw what is theirs, and nothing else")
        return 1 if self.wrong else 0

    async def lend(self, rack: fm.Switch) -> None:
        heading("Bind", "logical device 0 to host a: it arrives by hot plug")
        await self.bind(rack, LEFT, "a")
        path = self.region("a")
        self.run("a", f"softcxl-memory fill {path} 0 {CHECKED} 1")
        held = self.fabric.devices["pool.0"].space.read(0, CHECKED)
        self.verdict(
            held == pattern(1), f"host a wrote, Python found {CHECKED // MIB} MiB in logical device 0"
        )

    async def pass_on(self, rack: fm.Switch) -> None:
        heading("Unbind, and bind to the other", "the button of the slot is pushed; Linux takes 5 s to think")
        manager("unbind vPPB 0 of VCS 0")
        began = time.monotonic()
        await rack.unbind(LEFT, 0)
        console.print(f"host a has let go of it, {time.monotonic() - began:.1f} s later")
        self.list("a")
        await self.bind(rack, RIGHT, "b")
        path = self.region("b")
        command = f"softcxl-memory zeros {path} 0 {CHECKED}"
        console.print(f"[dim]b#[/] {command}")
        found = self.guests["b"].run(command)
        policy = self.fabric.mlds["pool"].on_unbind.value
        self.verdict(found.status == 0, f"host b finds zeros, nothing of host a's: `on_unbind: {policy}`")
        self.run("b", f"softcxl-memory fill {path} 0 {CHECKED} 2")
        window = self.fabric.hosts["a"].memory.windows[0].medium
        self.verdict(window.read(0, CHECKED) == bytes(CHECKED), "host a cannot see what host b wrote")

    async def share(self, pool: fm.Device) -> None:
        heading("Share", "4 MiB of dynamic capacity, for both at once; Linux has no driver for it yet,")
        console.print("so the program softcxl-extents answers the offers in each guest.", style="dim")
        manager(f"add 4 MiB to LD 1, with the tag {str(SHARED)[:8]}...")
        await pool.dc_add(1, 4 * MIB, tag=SHARED)
        self.extents("a", "answer 10")
        self.extents("a", f"write {SHARED} 4096 '{LETTER}'")
        manager("give LD 2 what has that tag, too")
        await pool.dc_share(2, SHARED)
        self.extents("b", "answer 10")
        read = self.extents("b", f"read {SHARED} 4096 {len(LETTER)}").strip()
        self.verdict(read == LETTER, f"host b reads what host a wrote: {read!r}")
        self.extents("b", f"write {SHARED} 4096 'b has answered!'")
        read = self.extents("a", f"read {SHARED} 4096 15").strip()
        self.verdict(read == "b has answered!", f"and host a what host b wrote: {read!r}")
        for ld, host in ((2, "b"), (1, "a")):
            await pool.dc_release(ld, length=4 * MIB, tag=SHARED)
            self.extents(host, "answer 10")
        self.verdict(await pool.dc_tags() == [], "both have given it back")

    # -- words of the story --------------------------------------------------------------------------------------

    async def bind(self, rack: fm.Switch, vcs: int, host: str) -> None:
        manager(f"bind vPPB 0 of VCS {vcs} to port {POOL}, logical device 0")
        began = time.monotonic()
        await rack.bind(vcs, 0, POOL, ld=0)
        self.until(host, lambda: "pool.0" in self.names(host))
        console.print(f"host {host} has it, {1000 * (time.monotonic() - began):.0f} ms later")
        self.list(host)

    def until(self, host: str, good: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not good():  # each look is a command in the guest
            if time.monotonic() > deadline:
                raise SoftCXLError(f"host {host} has not seen it for a minute")

    def names(self, host: str) -> dict[str, str]:
        """What the guest calls our devices."""
        serials = {device.serial: name for name, device in self.fabric.devices.items()}
        listed = json.loads(self.guests[host].output("cxl list -M") or "[]")
        return {serials[one["serial"]]: one["memdev"] for one in listed}

    def list(self, host: str) -> None:
        there = ", ".join(f"{memdev} is {name}" for name, memdev in self.names(host).items()) or "nothing"
        console.print(f"[dim]{host}#[/] cxl list -M   [dim]{there}[/]")

    def region(self, host: str) -> str:
        """Make a region of logical device 0; the path of its memory."""
        memdev = self.names(host)["pool.0"]
        made = json.loads(self.run(host, f"cxl create-region -t ram -d decoder0.0 -m {memdev}"))
        console.print(f"{made['region']}: {made['size'] // MIB} MiB at {made['resource']:#x}")
        dax = json.loads(self.guests[host].output("daxctl list"))[-1]["chardev"]
        return self.guests[host].output(f"softcxl-devdax {dax}").strip()

    def extents(self, host: str, words: str) -> str:
        memdev = self.names(host)["pool.1" if host == "a" else "pool.2"]
        return self.run(host, f"softcxl-extents {memdev} decoder0.1 {words}")

    def run(self, host: str, command: str) -> str:
        console.print(f"[dim]{host}#[/] {command}", soft_wrap=True)
        return self.guests[host].output(command)

    def verdict(self, good: bool, what: str) -> None:
        self.wrong += not good
        console.print("[bold green]ok[/]    " if good else "[bold red]WRONG[/] ", end="")
        console.print(what, markup=False)


def pattern(seed: int) -> bytes:
    """The pattern that `softcxl-memory` makes: 64-bit words, each the one before plus a constant."""
    step = np.uint64(0x9E3779B97F4A7C15)
    return (np.arange(CHECKED // 8, dtype=np.uint64) * step + np.uint64(seed)).tobytes()


def heading(title: str, rest: str) -> None:
    console.print(f"\n[bold cyan]{title}[/] [dim]{rest}[/]")


def manager(what: str) -> None:
    console.print(f"[bold]fabric manager:[/] {what}")


if __name__ == "__main__":
    sys.exit(main())
