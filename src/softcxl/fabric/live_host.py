"""A host of a live fabric, and how it becomes a machine in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.device.mld.logical import LogicalDevice
from softcxl.device.type3 import Type3
from softcxl.fabric import embedded, keys
from softcxl.fabric.errors import BuildError
from softcxl.fabric.host import HostMemory
from softcxl.fabric.routes import Route
from softcxl.host.system import System
from softcxl.memory.errors import MemoryFault
from softcxl.switch.machine import HostMachine
from softcxl.switch.tenant import Nobody

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class LiveHost:
    """A host: what the topology says of it, its memory windows, and the way to each of its devices, to each of its
    virtual switches, to each mailbox CCI of a switch, and to each pool access device."""

    name: str
    key: keys.Host
    memory: HostMemory
    routes: dict[str, Route]
    virtual: dict[str, Route]
    ccis: dict[str, Route]
    access: dict[str, Route]
    regions: tuple[FirmwareProgram, ...]
    fabric: Fabric
    attention: list[Callable[[], None]] = field(default_factory=list)
    """Called, from any thread, when a slot of a virtual switch has something to tell to whoever runs `machine`."""
    _machines: list[HostMachine] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<host {self.name}: {', '.join(self.routes) or 'no devices'}>"

    @property
    def machine(self) -> HostMachine:
        """The host as a machine in this process. Its devices are the machine's from the first time it is asked for:
        no door opens for them any more. Raises `BuildError` while one is open."""
        if not self._machines:
            for name in self.functions:
                if name in self.fabric.open_doors:
                    raise BuildError(
                        f"devices.{name}: is in use, its door is {self.fabric.open_doors[name].path}"
                    )
            for name in self.virtual:
                if not isinstance(self.fabric.virtual[name].tenant, Nobody):
                    raise BuildError(f"{name}: is in use by a guest of {self.name}")
            machine = embedded.build(self, self.memory.windows)
            # From here on firmware runs when the machine does, and not whenever a device comes out of a reset.
            firmware = {name: self.fabric.devices[name].platform for name in self.routes}
            for name in self.routes:
                self.fabric.devices[name].platform = lambda: None

            def program() -> None:
                for region in self.regions:
                    routes_ = [self.routes[name] for name in region.key.devices]
                    ways = len(self.key.windows[region.key.window].targets)
                    embedded.program(machine, region.hpa, region.size, region.granularity, routes_, ways)

            def start() -> None:
                for run in firmware.values():
                    run()
                program()

            program()
            machine.firmware = start
            self._machines.append(machine)
        return self._machines[0]

    @property
    def functions(self) -> list[str]:
        """The names of all functions in its ports: each has a door of its own. Not what virtual switches bind."""
        more = [function for name in self.access for function in self.fabric.access[name].functions]
        return [*self.routes, *self.ccis, *more]

    @property
    def driven(self) -> bool:
        """It has been a machine in this process."""
        return bool(self._machines)

    @property
    def bound(self) -> dict[str, Route]:
        """What is bound to its virtual switches now, and the way to it."""
        return {
            str(vppb.function.name): (*route, vppb.number)  # type: ignore[attr-defined]
            for name, route in self.virtual.items()
            for vppb in self.fabric.virtual[name].vppbs
            if vppb.function is not None
        }

    def reaches(self, device: str) -> bool:
        """Whether it has the device now: plugged in, or bound."""
        return device in self.routes or device in self.bound

    def unbound(self, device: Type3) -> None:
        """A guest of the host had the device, which is bound to it no more. Logical devices see to it themselves."""
        if not isinstance(device, LogicalDevice):
            leave_windows(device, self.memory)

    def boot(self, *, restore: bool = True) -> System:
        """An operating system on `machine`, in this process: it has enumerated, and found the regions of firmware
        and, with `restore`, those that labels describe. Once more is a second one, on what the first has left."""
        return System(self.machine, restore=restore)


@dataclass(frozen=True, slots=True)
class FirmwareProgram:
    """A region that firmware makes: where it is, and what each device's decoder is set to. Sizes in bytes."""

    key: keys.FirmwareRegion
    hpa: int
    size: int
    granularity: int
    skips: tuple[int, ...]


def leave_windows(device: Type3, memory: HostMemory) -> None:
    """Whatever the host goes on to write into its windows, it does not write into the device."""
    for one in memory.windows:
        try:
            device.space.detach(one.window)
        except MemoryFault as error:
            log.warning("%s: bytes of it stay in a window of its last host: %s", device.name, error)
